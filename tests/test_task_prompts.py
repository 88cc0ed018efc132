"""Prompts as people write them, of both kinds: those that ask for one of a list, and those that ask for a text."""

from __future__ import annotations

import pytest

from potstill.errors import TaskError
from potstill.task import Label
from potstill.task.file import read_task
from potstill.task.inference import read_by_rules

# Prompt and its labels.
CHOICES: list[tuple[str, str]] = [
    ("Assign each GitHub issue one of the tags [bug], [feature], [question].", "bug|feature|question"),
    ("Tag the issue as [bug], [feature] or [question].", "bug|feature|question"),
    ("Label emails with one of: [urgent] [normal] [low].", "urgent|normal|low"),
    ("Route support requests to <billing>, <tech> or <sales>.", "billing|tech|sales"),
    ("Classify news into {World, Sports, Business, Sci/Tech}.", "World|Sports|Business|Sci/Tech"),
    ("Classify news into [World, Sports, Business, Sci/Tech].", "World|Sports|Business|Sci/Tech"),
    ("Classify the message as [spam/ham].", "spam|ham"),
    (
        'You are a classifier. Given a message return JSON {"label": "spam"} or {"label": "ham"}.',
        "spam|ham",
    ),
    ("Identify the language of the text (English, French, German, Spanish).", "English|French|German|Spanish"),
    ("Detect the emotion in each tweet (joy, anger, fear or none).", "joy|anger|fear|none"),
    (
        "Decide if the review is positive or negative, where the tone (angry or calm) does not matter.",
        "positive|negative",
    ),
    ("Predict star rating (1-5 stars) for a review.", "1|2|3|4|5"),
    ("Detect spam (spam = 1, ham = 0).", "1|0"),
    ("Is this comment toxic? Answer 1 for toxic and 0 for not toxic.", "1|0"),
    ("Route each ticket to sales, support or billing.", "sales|support|billing"),
    ("You get a sentence from a business email. Formal or informal?", "formal|informal"),
    ("A customer writes about an order. Output POSITIVE, NEGATIVE or NEUTRAL.", "POSITIVE|NEGATIVE|NEUTRAL"),
    ("Tag each commit (bug / feature / chore).", "bug|feature|chore"),
    ("What does the customer want? A) refund B) exchange C) other", "refund|exchange|other"),
    ("What does the customer want?\nA) refund\nB) exchange\nC) other", "refund|exchange|other"),
    ("Read the message and choose one:\n1. refund\n2. exchange\n3. other", "refund|exchange|other"),
    ("Pick one for each email: (a) invoice (b) complaint (c) spam", "invoice|complaint|spam"),
    ("Classify the ticket as one of the following:\nbilling\nbug\nother", "billing|bug|other"),
    ("Classify the support ticket:\n\nbilling\ntechnical issue\nother", "billing|technical issue|other"),
    ("The label must be one of:\nrefund\nshipping\nother\n\nOnly reply with the label.", "refund|shipping|other"),
    (
        "Your task is to classify a given url into one of the following categories:\nMovie, App, "
        "Academic, Channel, Profile, PDF or None based on the text content information.\nThe "
        "classification will be based on the url, the webpage text content summary, or both.",
        "Movie|App|Academic|Channel|Profile|PDF|None",
    ),
    (
        "You are a sentiment analyzer. Given a tweet, output its sentiment: positive, negative, or neutral.",
        "positive|negative|neutral",
    ),
    (
        "# System\nYou are an expert email triage agent.\n\n# Task\nAssign the email to exactly one "
        "queue: sales, support, billing, spam.\n\n# Output\nOnly the queue name.",
        "sales|support|billing|spam",
    ),
    (
        "Decide whether an applicant should be hired, rejected, or put on a waiting list.",
        "hired|rejected|put on a waiting list",
    ),
    ("Decide if a ticket is closed, escalated or handed to a manager.", "closed|escalated|handed to a manager"),
    ("Determine if a loan should be approved, denied or sent for review.", "approved|denied|sent for review"),
    (
        "Determine if a loan should be approved, denied or sent for review based on the income.",
        "approved|denied|sent for review",
    ),
    ("Say whether the customer wants a refund, an exchange or a repair.", "refund|exchange|repair"),
    ("Tell whether the guest complains about the room, the food or the staff.", "room|food|staff"),
    ("Say if the author prefers tea, coffee or water.", "tea|coffee|water"),
    ("Is the sentiment of the review positive or negative?", "positive|negative"),
    ("Is the tone of the customer email formal or informal?", "formal|informal"),
    ("Is the stance of this tweet in favour or against?", "in favour|against"),
    ("Is the author of the text a man or a woman?", "man|woman"),
    ("Decide whether two sentences are paraphrases.", "yes|no"),
    ("Given two sentences, output 1 if they are paraphrases of each other and 0 otherwise.", "1|0"),
    (
        "Read the claim and the evidence, then label the claim SUPPORTS, REFUTES or NOT ENOUGH INFO.",
        "SUPPORTS|REFUTES|NOT ENOUGH INFO",
    ),
    ("Label each sentence acceptable or unacceptable.", "acceptable|unacceptable"),
    ("Tag the tweet ironic or sincere.", "ironic|sincere"),
    ("Mark each comment toxic or clean.", "toxic|clean"),
    ("Classify the utterance (1: inform, 2: question, 3: directive, 4: commissive).", "1|2|3|4"),
    ("Detect the stance of the tweet: FAV means in favour, AGN means against, NONE means neither.", "FAV|AGN|NONE"),
    ("Classify the message as spam (1) or not (0).", "1|0"),
    ("Predict the sentiment: 0 - negative, 1 - positive.", "0|1"),
    ("Classify the dialogue act: inform=1, question=2, directive=3, commissive=4.", "1|2|3|4"),
    ("Predict the label, where 0 is negative and 1 is positive.", "0|1"),
    ("Classify emotion among sadness, joy, love, anger, fear, surprise.", "sadness|joy|love|anger|fear|surprise"),
    (
        "Given the fields `sentence`, produce the fields `sentiment`. sentiment: Literal['positive', "
        "'negative', 'neutral']",
        "positive|negative|neutral",
    ),
    (
        "Your task is to determine whether a product review is positive or negative. Respond with "
        '"positive" or "negative" only.',
        "positive|negative",
    ),
    (
        "Classify the sentiment of the following review. Return only one word: Positive or Negative.",
        "Positive|Negative",
    ),
    (
        "Please read the customer message and reply with exactly one of these words: REFUND, REPLACE, ESCALATE.",
        "REFUND|REPLACE|ESCALATE",
    ),
    ("Is the following comment toxic? Reply YES or NO.", "YES|NO"),
    ("Here's an SMS message. Spam or not spam?", "spam|not spam"),
    ("Given an SMS, is it spam or ham?", "spam|ham"),
    ("I'll give you a headline. Tell me if it's clickbait or not.", "clickbait|not clickbait"),
    (
        "I have product reviews and I want to know if they are about shipping, quality, price, or something else.",
        "shipping|quality|price|something else",
    ),
    (
        "We receive emails from customers. Each should be labelled 'complaint', 'inquiry', 'feedback'.",
        "complaint|inquiry|feedback",
    ),
    ("Return a JSON string with the label. Labels: urgent, not_urgent.", "urgent|not_urgent"),
    ("Which department should handle this ticket: HR, IT, Finance or Legal?", "HR|IT|Finance|Legal"),
    ("Decide which team handles a bug report. Options: frontend, backend, infra.", "frontend|backend|infra"),
    ("For every chat message decide the next action (reply, escalate, ignore).", "reply|escalate|ignore"),
    ("Determine the stance of the tweet towards climate change: FAVOR, AGAINST, NONE", "FAVOR|AGAINST|NONE"),
    ("Input: a tweet. Output: one of {hate, offensive, neither}.", "hate|offensive|neither"),
    ("Input: customer message. Output: label in [refund, shipping, other].", "refund|shipping|other"),
    ("Label the text with 0 (not hateful) or 1 (hateful).", "0|1"),
    ("Answer 1 if the two questions are duplicates, 0 if they are not.", "1|0"),
    ("Output 1 if the review is fake and 0 otherwise", "1|0"),
    ("Return 'A' if the first answer is better, 'B' if the second answer is better, or 'tie'.", "A|B|tie"),
    (
        "Pick the best category for the article: Business, Tech, Politics, Sports, Entertainment",
        "Business|Tech|Politics|Sports|Entertainment",
    ),
    (
        "Pick one of the following categories for the product:\n- electronics\n- clothing\n- home & garden",
        "electronics|clothing|home & garden",
    ),
    ("Choose the correct option for the sentence: fact, opinion, mixed.", "fact|opinion|mixed"),
    (
        "Categories:\n* Bug report\n* Feature request\n* Question\n\nAssign the GitHub issue to a category.",
        "Bug report|Feature request|Question",
    ),
    (
        "Possible intents:\nbook_flight\ncancel_flight\nflight_status\n\nFind the user's intent.",
        "book_flight|cancel_flight|flight_status",
    ),
    ("Assign each job title to a seniority: junior, mid, senior, lead.", "junior|mid|senior|lead"),
    ("Mark each sentence as biased or unbiased.", "biased|unbiased"),
    (
        "Given a premise and a hypothesis, answer entailment, contradiction, or neutral.",
        "entailment|contradiction|neutral",
    ),
    ('Say "safe" or "unsafe" for each user prompt.', "safe|unsafe"),
    ("A message from a user. Does it need a human? yes / no", "yes|no"),
    ("Read the contract clause and give its risk level: low, medium or high.", "low|medium|high"),
    ("Estimate how urgent a ticket is: P1, P2, P3 or P4.", "P1|P2|P3|P4"),
    ("How urgent is the ticket? P1 / P2 / P3 / P4", "P1|P2|P3|P4"),
    ("Separate questions from statements: output question or statement.", "question|statement"),
    ("Turn a review into a label: good, bad, or mixed.", "good|bad|mixed"),
    ("Find out if a sentence is grammatical or ungrammatical.", "grammatical|ungrammatical"),
    ("Identify whether the narrator is first-person or third-person.", "first-person|third-person"),
    ("Tag POS sentiment of tweets: pos/neg/neu", "pos|neg|neu"),
    (
        "You will see a user question to a bank's chatbot. Respond with the intent only, from: balance, "
        "transfer, card_lost, other.",
        "balance|transfer|card_lost|other",
    ),
    (
        "Respond with the intent only. The intents are balance, transfer, card_lost and other.",
        "balance|transfer|card_lost|other",
    ),
    ("Given an issue, write its type: bug, feature or question.", "bug|feature|question"),
    (
        "Analyze the sentiment of the given text and provide a classification as positive, negative, or neutral.",
        "positive|negative|neutral",
    ),
    (
        "Evaluate whether the response is helpful, partially helpful, or unhelpful.",
        "helpful|partially helpful|unhelpful",
    ),
    ("Check if an answer is supported by the passage. Return SUPPORTED or NOT_SUPPORTED.", "SUPPORTED|NOT_SUPPORTED"),
    ("Filter resumes: keep or reject.", "keep|reject"),
    ("Sort tickets. Labels are:\nbilling – money\nbug – crashes\nother – the rest", "billing|bug|other"),
    ("Classify the review.\n\nLabels:\npositive\nnegative", "positive|negative"),
    ("Classify reviews with the options below.\n\na. positive\nb. negative\nc. mixed", "positive|negative|mixed"),
    ("Does the review recommend the product? Options:\n(A) yes\n(B) no\n(C) unclear", "yes|no|unclear"),
    ("classify customer feedback into praise, complaint, suggestion", "praise|complaint|suggestion"),
    ("Sentiment analysis of app reviews: positive, negative, neutral", "positive|negative|neutral"),
    ("Ticket triage. Priority: P0, P1, P2, P3.", "P0|P1|P2|P3"),
    ("Given a support chat, decide who should take it: bot, agent, or manager.", "bot|agent|manager"),
    ("For each log line say INFO, WARNING or ERROR.", "INFO|WARNING|ERROR"),
    ("Detect hate speech. Answer hate / not hate.", "hate|not hate"),
    (
        "Which of the following best describes the message?\n- question\n- complaint\n- thanks",
        "question|complaint|thanks",
    ),
    ("Which of these is the message? question, complaint, thanks", "question|complaint|thanks"),
    (
        "Read the abstract and pick its field from physics, biology, chemistry or computer science.",
        "physics|biology|chemistry|computer science",
    ),
    ("You are a content moderator. Respond APPROVE or REJECT for every comment.", "APPROVE|REJECT"),
    (
        "You're a helpful assistant for a hotel. Classify guest messages into these groups: "
        "housekeeping, maintenance, front desk, spa.",
        "housekeeping|maintenance|front desk|spa",
    ),
    (
        "Label: is the claim SUPPORTED, REFUTED or NOT ENOUGH INFO given the evidence?",
        "SUPPORTED|REFUTED|NOT ENOUGH INFO",
    ),
    ("Predict whether the loan application will be approved or denied.", "approved|denied"),
    ("Tell whether an email is phishing or legitimate.", "phishing|legitimate"),
    ("Spam filter for SMS: spam/ham", "spam|ham"),
    (
        "Intent classification for a pizza bot. Intents: order, cancel, track, menu, smalltalk",
        "order|cancel|track|menu|smalltalk",
    ),
    ("What is the tone of the email: angry, neutral or happy?", "angry|neutral|happy"),
    (
        "Say whether the hypothesis follows from the premise: entailment, neutral or contradiction.",
        "entailment|neutral|contradiction",
    ),
    ("Check whether the claim holds in the text: yes, partly or no.", "yes|partly|no"),
    ("Does the text talk about cats, dogs or neither?", "cats|dogs|neither"),
    ("Identify the speaker's emotion (happy, sad, angry, neutral).", "happy|sad|angry|neutral"),
    ("Rate how helpful the answer is: 1, 2, 3, 4 or 5.", "1|2|3|4|5"),
    ("Rate the helpfulness of the answer from 1 to 3.", "1|2|3"),
    ("Categorise expenses.\nCategories: travel | food | office | other", "travel|food|office|other"),
    ("Categorise expenses. The allowed categories are:\n\n  travel\n  food\n  office\n", "travel|food|office"),
    ("Sort job ads by seniority (junior / mid / senior).", "junior|mid|senior"),
    ("Assign one of these tags: #bug, #feature, #docs", "#bug|#feature|#docs"),
    ("Please label these sentences as either 'fact' or 'opinion'. Do not explain.", "fact|opinion"),
    ("Determine the language of the text. Output en, de or fr.", "en|de|fr"),
    ("Extract the sentiment (positive, negative, neutral) of the review.", "positive|negative|neutral"),
    ("Output the sentiment of a tweet (positive, negative or neutral).", "positive|negative|neutral"),
    ("Output the sentiment of a tweet as positive, negative or neutral.", "positive|negative|neutral"),
    ("Return the category of the product: shoes, shirts, hats.", "shoes|shirts|hats"),
    ("Given a comment, return whether it is toxic.", "yes|no"),
    ("I need a model that tells refund requests from other emails. Answer refund or other.", "refund|other"),
    ("Choose the right department:\na) sales\nb) support\nc) billing\n\nAnswer with the letter only.", "a|b|c"),
    ("Given the conversation, is the customer satisfied? A. yes B. no C. can't tell", "yes|no|can't tell"),
    ("Decide: is this email spam or not?", "spam|not spam"),
    ("Reviews of restaurants; is the reviewer happy or unhappy?", "happy|unhappy"),
    (
        "Given a news article, assign a topic. Topics: world, sports, business, sci/tech.",
        "world|sports|business|sci/tech",
    ),
    (
        "Classify each support ticket.\n\n| Label | When |\n| --- | --- |\n| billing | money |\n| bug | crash |",
        "billing|bug",
    ),
    ("Classify text.\n\nClasses\n-------\n* urgent\n* normal", "urgent|normal"),
    ("Classify as:\n - Hot lead\n - Warm lead\n - Cold lead", "Hot lead|Warm lead|Cold lead"),
    ("Triage patient messages: 1 = emergency, 2 = urgent, 3 = routine", "1|2|3"),
    ("Stance detection on abortion: pro-life, pro-choice, neutral", "pro-life|pro-choice|neutral"),
    (
        "You are given a question and must say which type of answer it expects: person, place, number or date.",
        "person|place|number|date",
    ),
]

TEXTS: list[str] = [
    "Who is right in this dispute, and why or why not?",
    "What could go wrong with the plan, or how would it fail?",
    "Sort the words alphabetically.",
    "Sort the list of numbers in ascending order.",
    'Turn the command into JSON with two keys: "intent" (one of AddToPlaylist, GetWeather) and "slots", a list.',
    "Extract from the review a JSON object with the fields product, sentiment (one of positive, negative) and price.",
    'Return JSON with the fields "sender", "amount" and "type" (spam or ham) for the SMS.',
    "Answer the question with a short phrase or a number.",
    "Answer the question with words or numbers of the passage.",
    "Write a poem (1: about love, 2: about war).",
    "Summarize the text in steps: 1: read, 2: write.",
    "Translate the sentence: EN means English, DE means German.",
    "Write a poem or a song about the given topic.",
    "Write A or B.",
    "Output JSON or YAML for the given description.",
    "Translate formal or informal English into French.",
    "Output a poem, a song or a story.",
    "Output the name, the date and the amount of the invoice.",
    "Output name, date and amount.",
    "Summarize the meeting notes: decisions, action items, and open questions.",
    "Extract the following from the invoice:\n- vendor\n- date\n- total",
    "Extract the following fields:\nvendor\ndate\ntotal",
    ("Write a product description with the following parts:\n1. headline\n2. features\n3. call to action"),
    "Given a recipe, output ingredients, steps and cooking time.",
    "Given a list of ingredients (vegetables, meat or fish), write a recipe.",
    "Rewrite the email in a tone that is friendly, formal or neutral, as the user asks.",
    "Turn each commit message (bug / feature / chore) into a line of a changelog.",
    "Translate the text to French or German.",
    "Answer the multiple choice question. A) is the first option, B) the second.",
    "Answer a multiple-choice question with an explanation.",
    "Return the SQL or NoSQL query for the question.",
    "Return the first, second and third word.",
    "Reply to a customer who wants a refund, an exchange or a repair.",
    "Write a reply:\n\nDear customer\nThank you",
    "Generate a name for a cat, dog or bird.",
    "Produce a haiku. 5-7-5.",
    "Given two numbers, output their sum, difference and product.",
    "Output only the answer, no explanation or comment.",
    "Output the corrected sentence only, without quotes or comments.",
    "Output only the translation, without notes, quotes or explanations.",
    "Return the entities: persons, places and organizations, as JSON.",
    "Given a sentence, output the subject, verb and object.",
    "Convert the text to uppercase or lowercase as requested.",
    "Formal or informal, the sentence must be rewritten in plain English.",
    "Rephrase the sentence. Formal or informal?",
    "Write a short story:\nbeginning\nmiddle\nend",
    "Choose a name for the product. Explain why.",
    "Pick one sentence that sums up the article.",
    "Choose one of the sentences of the article as its headline.",
    "Pick three keywords from the text.",
    "Answer the question in one or two sentences.",
    "Say hello or goodbye in the language of the message.",
    "Create a quiz question with options: A) B) C) D) and the answer.",
    (
        "Create a multiple-choice question with four options:\nA) the right answer\nB) a wrong "
        "answer\nC) a wrong answer\nD) a wrong answer"
    ),
    "Explain the code: what it does, how it works and why.",
    "Given a bug report, write steps to reproduce, expected and actual result.",
    "Respond with a haiku, limerick or sonnet about the topic.",
    "Output Markdown or HTML.",
    "Output valid JSON, nothing else.",
    "Output a number, a unit or a currency.",
    "Given a question, give a short answer, a long answer or a list.",
    "Paraphrase the sentence, keep names and numbers.",
    "Simplify the text for children, adults or seniors.",
    "Describe the image: colours, objects and mood.",
    "Return Python or JavaScript code.",
    "Reply in English, French or German.",
    "Reply politely, briefly and clearly.",
    "Answer in JSON or XML.",
    "Draft a message to the team: status, risks, next steps.",
    "Summarise the review: positive points, negative points, verdict.",
    "Expand the abbreviation in a medical note.",
    "Find the bug in the code and fix it.",
    "Find the capital of the country.",
    "Normalise dates: output YYYY-MM-DD.",
    "You are a helpful assistant that writes commit messages (fix, feat or chore prefix) from a diff.",
    "From a job ad, list:\n1) skills\n2) years of experience\n3) location",
    "Given a customer's message, do the following:\nThank them\nApologise\nOffer help",
    "You are a poet. Topic or theme? Then rhyme.",
    "The input is a question. Short or long, answer it.",
    "A user asks for a joke, a pun or a riddle. Output it.",
    "Given a title, output an abstract, keywords or both.",
    "Please output your answer as a sentence or a paragraph.",
    "Given a paragraph, output the summary, title and keywords.",
    "Suggest what to cook: breakfast, lunch or dinner.",
    "Name three animals: a mammal, a bird and a fish.",
    "Compute the sum. Output integers or floats.",
    "Solve the puzzle. Print the rows, columns or cells that change.",
    "Write alt text for an image: one sentence, plain words, no jargon.",
    "Output a title, a summary or a tagline.",
    'Output the answer or "I don\'t know".',
    'Answer the question from the context. If the answer is not in the context, say "unknown".',
    "Answer the question. If it cannot be answered return N/A or UNKNOWN.",
    "Translate to French. Output TRANSLATION only.",
    "Turn the bullet points into an email: greeting, body, closing.",
    "Return true JSON. Keys: name, email, phone.",
    "Extract name, email and phone. Return null when missing.",
    "List the pros or cons of the product.",
    "Give me a synonym or antonym of the word.",
    "Name a synonym: if none, say NONE.",
    "Given a product, write a slogan. Style: funny, serious or neutral.",
    "Write a tweet in one of the following tones: funny, serious, neutral.",
    "Write a description for each of these categories:\n- shoes\n- hats",
    "Extract the following values:\n- vendor\n- total",
    "Generate questions of the following types:\n- who\n- what\n- when",
    "Rewrite the email. Use one of these tones:\n- formal\n- friendly",
    "Rewrite in one of formal, friendly or neutral tone.",
    "Complete the sentence with a noun, verb or adjective.",
    "Fill in the blank: a, an or the.",
    "Reply with a joke or a pun.",
    "Reply to the review: if it is positive, thank them; if it is negative, apologise.",
    "Respond to positive or negative reviews.",
    "Write a response to positive, negative or neutral reviews.",
    "Summarise positive, negative and neutral reviews.",
    "Summarise the review and give its sentiment: positive or negative.",
    "Explain whether the code is correct or wrong and why.",
    "Extract all dates; return NONE if there are none.",
    "Convert yes/no questions to statements.",
    "Generate a yes or no question about the passage.",
    "Write a true or false quiz question with its answer.",
    "Create multiple choice questions (A, B, C, D).",
    "Paraphrase the sentence: keep it formal, short and polite.",
    "Write a formal or informal greeting.",
    "Tell a story about a cat, a dog or a bird.",
    "Say it in other words.",
    "Give step-by-step directions: start, turns, end.",
    "Turn an English question into SQL or into a Python expression.",
    "Describe the level of the river: low, medium or high water and what it means for boats.",
    "Print the first ten primes or squares.",
    "Write docstrings. Style: Google, NumPy or reST.",
    "Suggest a category name for the cluster of texts.",
    "Suggest tags for a blog post: three to five words.",
    "Return the capital, the currency or the language of the country that is asked for.",
    "Solve the equation. Answer: a number or a fraction.",
    "Given a headline, invent the opposite headline: good news becomes bad.",
    "What is the capital of the country?",
    "What should I cook? Breakfast, lunch and dinner ideas please.",
    "Why is the sky blue? Explain it to a child, teenager or adult.",
    "Do you know a good joke?",
    "Correct spelling. Output the corrected text only, or OK if nothing is wrong.",
]

# Prompts that ask for a label of each of two sets.
TWO_SETS: list[str] = [
    "Label sentiment as positive or negative, and the topic as sports, politics or tech.",
    "Classify the sentiment (positive, negative) and urgency (low, high) of tickets.",
    "Classify tickets by topic (billing, bug) and by urgency (low, medium, high).",
    "Classify the tweet. Sentiment: positive, negative. Topic: sports, tech.",
    "Classify the email as spam or ham and as urgent or not urgent.",
    'Classify the tweet. Return {"sentiment": "positive|negative", "topic": "sports|tech"}',
    "Assign a sentiment:\n- positive\n- negative\n\nAnd a topic:\n- sports\n- tech",
    "Decide whether the review is positive or negative and whether it is about food or service.",
    "Classify reviews by sentiment as positive or negative and by topic as food or service.",
    "Sentiment: positive / negative / neutral\nUrgency: low / high\nLabel each email.",
    "For each ticket, determine its category (billing, bug, other) and its priority (P1, P2, P3).",
    "Detect the language (English, French) and the sentiment (positive, negative) of a tweet.",
    "Classify the message's intent as question or complaint; classify its tone as polite or rude.",
    "Classify. text -> sentiment: Literal['good', 'bad'], topic: Literal['art', 'war']",
    "Say whether a review is positive or negative, and whether it is about food or service.",
    "Is the review positive or negative, and is it about food or service?",
    "Read the review and give the sentiment: positive or negative. Also give the topic: food or service.",
]
ONE_SET: list[tuple[str, str]] = [
    (
        "Classify the sentiment as positive or negative. Sentiment (positive, negative) is what counts.",
        "positive|negative",
    ),
    ("Classify tickets by topic: billing (invoices, refunds), bug (crashes, errors) or other.", "billing|bug|other"),
    ("Classify the type of the question as who, what or where. The question can be short or long.", "who|what|where"),
    ("Classify the topic of English or German news as sports or politics.", "sports|politics"),
    ("Classify the tweet as spam or ham. Answer with spam or ham.", "spam|ham"),
    ("Say whether a sentence is true or false, and answer in one word.", "true|false"),
    ("Say whether a review is positive or negative, whatever it is about.", "positive|negative"),
    ("Classify the urgency as 0, 1 or 2 (0 = low, 1 = medium, 2 = high).", "0|1|2"),
    ("Classify the tone as formal or informal, where slang counts as informal.", "formal|informal"),
    ("Label a comment as toxic or not. Toxic means insults or threats.", "toxic|not toxic"),
    ("Label the sentiment: 1 (negative), 2 (neutral), 3 (positive)", "1|2|3"),
    (
        "Classify emails into two categories: urgent or normal. Urgent emails are about outages or safety.",
        "urgent|normal",
    ),
]


# What goes on behind the last name of a list, and is none.
GOES_ON: list[str] = [
    ", and return only the label", ", and answer in lower case", ', e.g. "fine" is positive', ", i.e. by its words",
    ", ignoring spelling mistakes", ", and ignore sarcasm", " and ignore sarcasm", ", choosing the best fit",
    ", regardless of language", ", whichever fits best", ", then translate it into French", ", using lower case",
    ", considering only the body", ", even when they are short", ", please", ", keeping the case of the label",
    ", taking the sender into account", ", as a moderator would", ", one word", ", return only that", ", and explain",
    ", in lower case", ", not by their stars", ", one label per review", ", and never both", ", respectively",
    " and return nothing but the label", ", and use lower case letters", ", weighing the whole text", ", and be strict",
]  # fmt: skip
COMPOUND: list[tuple[str, str]] = [
    ("Sort tickets into refund or exchange, shipping, billing and other.", "refund or exchange|shipping|billing|other"),
    ("Sort tickets into returns or refunds, shipping, other.", "returns or refunds|shipping|other"),
    (
        "Sort tickets into returns or refunds, shipping or delivery, billing, or other.",
        "returns or refunds|shipping or delivery|billing|other",
    ),
    ("Label tickets: billing, returns or refunds, shipping.", "billing|returns or refunds|shipping"),
    ("Label tickets: billing, returns or refunds, shipping problem.", "billing|returns or refunds|shipping problem"),
    ("Classify questions as yes or no, multiple choice, open ended.", "yes or no|multiple choice|open ended"),
    ('Classify the urgency as "now or never", "later" or "soon".', "now or never|later|soon"),
    ("Label vehicles as car or van, bus or tram, ship or boat.", "car or van|bus or tram|ship or boat"),
    ("Label the sentence as past, present or future, or none.", "past|present|future|none"),
    ("Label the sentence as past, present or future, or mixed if several occur.", "past|present|future|mixed"),
    ("Label offers as used, refurbished, or new, by what they say.", "used|refurbished|new"),
    ("Label numbers as odd or even, prime.", "odd or even|prime"),
    ("Sort tickets: exchange or refund, return request.", "exchange or refund|return request"),
]


# Lists that go on over several lines, and lines that are names.
LINES: list[tuple[str, str]] = [
    (
        "Classify the utterance into one of these intents:\ngreeting, goodbye,\norder_status, refund_request,\n"
        "small talk.\n\nReturn the intent only.",
        "greeting|goodbye|order_status|refund_request|small talk",
    ),
    (
        "Classify the message.\nLabels:\nbook_flight, cancel_flight,\nchange_seat, lost_luggage,\nother",
        "book_flight|cancel_flight|change_seat|lost_luggage|other",
    ),
    ("Classify the message.\nCategories:\nA1, B1,\nC1, D1", "A1|B1|C1|D1"),
    ("Classify the message.\nCategories:\nred, green\nblue, black", "red|green|blue|black"),
    ("Sort news. Categories:\n\nWorld, Sports,\nBusiness, Sci/Tech", "World|Sports|Business|Sci/Tech"),
    ("Classify tickets. Labels:\nbilling; bug;\nfeature; other", "billing|bug|feature|other"),
    ("Classify tickets. Labels:\nbilling | bug |\nfeature | other", "billing|bug|feature|other"),
    ('Sort tickets. Options:\n"billing", "bug",\n"other"', "billing|bug|other"),
    ("Classify the text as one of:\njoy, love,\nanger, fear\n\nText: {text}", "joy|love|anger|fear"),
    ("Categories:\nnews, sports,\nweather, other\n\nPut each headline into a category.", "news|sports|weather|other"),
    ("Possible intents:\n\nbook, cancel,\nstatus,\nother\n\nFind the user's intent.", "book|cancel|status|other"),
    (
        "Classify tickets. Labels:\nbilling, bug,\nfeature request\nReply with the label only.",
        "billing|bug|feature request",
    ),
    ("Classify tickets. The labels are:\nbilling,\nbug,\nother", "billing|bug|other"),
    ("Classify tickets. Labels:\nbilling: money, refunds\nbug: crashes, errors", "billing|bug"),
    ("Classify tickets. Labels:\nbilling - money, refunds,\nbug - crashes, errors", "billing|bug"),
    (
        "Classify products. Categories:\nHome, Garden & Tools\nClothing, Shoes & Jewelry\nToys",
        "Home, Garden & Tools|Clothing, Shoes & Jewelry|Toys",
    ),
    ("Classify products. Categories:\nHome, Garden & Tools,\nToys", "Home, Garden & Tools|Toys"),
    ("Classify places. Labels:\nBonn, Germany\nBern, Switzerland\nother", "Bonn, Germany|Bern, Switzerland|other"),
    (
        "Classify tickets. The labels are:\nbilling (money, refunds)\nbug (crashes, errors)\nother",
        "billing (money, refunds)|bug (crashes, errors)|other",
    ),
    ("Classify notes. Labels:\nCardiology, adult\nCardiology, children", "Cardiology, adult|Cardiology, children"),
]


# What is said of the inputs in the words that ask for several labels elsewhere.
OF_THE_INPUT: list[tuple[str, str]] = [
    ("Classify documents of one or more paragraphs as legal, medical or other.", "legal|medical|other"),
    ("Classify support tickets (each has one or more messages) as billing, bug or other.", "billing|bug|other"),
    ("Classify mails as spam or ham. Read every word of the email.", "spam|ham"),
    ("Classify reviews as positive or negative. Reviews may contain one or more typos.", "positive|negative"),
    ("Classify claims as valid or invalid. Consider all applicable rules.", "valid|invalid"),
    ("Classify claims as valid or invalid. Consider all rules that apply.", "valid|invalid"),
    ("Classify dialogues as polite or rude; a dialogue consists of one or more turns.", "polite|rude"),
    ("Classify emails that contain zero or more attachments as spam or ham.", "spam|ham"),
    ("Classify articles about one or more companies as good or bad.", "good|bad"),
    ("Classify tweets that name one or several brands as good or bad.", "good|bad"),
    ("Classify articles that cover one or more topics as long or short.", "long|short"),
    ("Decide whether a text mentions one or more people.", "yes|no"),
    ("Classify words as noun or verb. All words are lower case.", "noun|verb"),
    ("Classify a ticket with multiple messages as billing or bug.", "billing|bug"),
    ("Classify tickets as billing or bug. If several labels apply, choose the first.", "billing|bug"),
    ("Classify tickets as billing or bug. If more than one category applies, pick the main one.", "billing|bug"),
    ("Classify tickets as billing or bug. Do not give more than one label.", "billing|bug"),
    ("Classify tickets as billing or bug. Never assign multiple labels.", "billing|bug"),
    ("Classify tickets as billing or bug. Assign one label, even where two or more categories fit.", "billing|bug"),
    ("Classify emails into two categories: urgent or normal.", "urgent|normal"),
    ("Classify rows as good or bad. Rows with several labels are bad.", "good|bad"),
    ("Assign one of up to three priorities: low, medium, high.", "low|medium|high"),
]
# Names that hold words which elsewhere end a list or split one.
WHOLE_NAMES: list[tuple[str, str]] = [
    ("Choose from: joy, sadness, no emotion", "joy|sadness|no emotion"),
    ("Classify texts as fact, opinion or no topic.", "fact|opinion|no topic"),
    ("Classify reviews as positive, negative, or has no sentiment.", "positive|negative|has no sentiment"),
    ("Label posts with joy, anger or neutral emotion.", "joy|anger|neutral"),
    ("Classify statements as true, half-true, false, or pants on fire.", "true|half-true|false|pants on fire"),
    ("Classify calls as answered, missed, or put on hold.", "answered|missed|put on hold"),
    ("Classify jobs as done, open or still in progress.", "done|open|still in progress"),
    ("Classify offers as sold or not for sale.", "sold|not for sale"),
    ("Classify tweets as pro, anti or neutral on vaccination.", "pro|anti|neutral"),
    ("Classify claims as true or false on the basis of the text.", "true|false"),
    ("Classify the SMS. Choose from: Spam or Not Spam", "Spam|Not Spam"),
    ("Classify messages as Spam or Not Spam.", "Spam|Not Spam"),
    ("Is this Spam or Not Spam?", "Spam|Not Spam"),
    ("Classify emails as Urgent or Not.", "Urgent|Not Urgent"),
    ("Is the text Toxic or not?", "Toxic|not Toxic"),
    ("Is it spam or not?", "spam|not spam"),
    (
        "Sort tickets into Sales and Marketing, Research and Development, Health and Safety.",
        "Sales and Marketing|Research and Development|Health and Safety",
    ),
    ("Sort tickets into R and D, arts and crafts, food and other.", "R and D|arts and crafts|food|other"),
    ("Sort news into arts and crafts, sports, business and tech.", "arts and crafts|sports|business|tech"),
    ("Sort news into world, sports, business and tech.", "world|sports|business|tech"),
    (
        "Categories: Credit card; Mortgage; Student loan; Vehicle loan or lease. Classify complaints.",
        "Credit card|Mortgage|Student loan|Vehicle loan or lease",
    ),
    ("Classify each message as: question; complaint; or praise.", "question|complaint|praise"),
    ("Sort reviews into positive; negative or neutral.", "positive|negative|neutral"),
    ("Classify into: A: technical question; B: billing question; C: feedback", "A|B|C"),
    ("Classify tickets: A = refund, B = delivery", "A|B"),
    ("Label tickets: a: refund, b: delivery, or c: other", "a|b|c"),
    ("Label tickets: R = refund; D = delivery", "R|D"),
    ("Label tickets: 1: refund, 2: delivery", "1|2"),
    ("Classify tickets as A or B: be quick.", "A|B"),
    ("Classify tickets as a refund or a delivery.", "refund|delivery"),
]
# A word that leads to all names of a question is no part of the first.
QUESTIONS: list[tuple[str, str]] = [
    ("Who wrote this tweet of the 2016 election, Hillary Clinton or Donald Trump?", "Hillary Clinton|Donald Trump"),
    ("Which team should take the ticket, billing, support or sales?", "billing|support|sales"),
    ("Is the name that of something to eat or drink? Answer yes or no.", "yes|no"),
    ("Is the comment about food or service? Reply with true or false only.", "true|false"),
    ("Is the passage about biology, chemistry, or physics?", "biology|chemistry|physics"),
    ("Is the review written by a man, a woman, or unknown?", "man|woman|unknown"),
    ("Is this tweet from a bot or a human?", "bot|human"),
    ("Is the email from a customer or a supplier?", "customer|supplier"),
    ("Is the text in English, French or German?", "English|French|German"),
    ("Is the message addressed to sales, support or billing?", "sales|support|billing"),
    ("Decide whether a text is written by a human or a machine.", "human|machine"),
    ("Are these reviews about food, service or price?", "food|service|price"),
    ("Is the customer's tone polite or rude?", "polite|rude"),
    ("Is this order in stock or sold out?", "in stock|sold out"),
    ("Is the ticket on hold, open or closed?", "on hold|open|closed"),
    ("Is the tweet from a bot or from a human?", "from a bot|from a human"),
]
# Points of a scale, and sorting in other words.
RATED: list[tuple[str, str]] = [
    ("Give each review a star rating from one to five.", "1|2|3|4|5"),
    ("How many stars would this reviewer give? Answer with a number from 1 to 5.", "1|2|3|4|5"),
    ("Output a number between 1 and 5 saying how formal the email is.", "1|2|3|4|5"),
    ("Estimate the difficulty of a math problem (1-5).", "1|2|3|4|5"),
    ("Estimate the reading difficulty of a text from 1 (easy) to 5 (hard).", "1|2|3|4|5"),
    ("Give the review a score from 1 to 10.", "1|2|3|4|5|6|7|8|9|10"),
    ("Say how polite the email is on a scale from 1 to 7.", "1|2|3|4|5|6|7"),
    ("Return an integer from 0 to 4 for the severity of the report.", "0|1|2|3|4"),
    ("Rate the review with one to five stars.", "1|2|3|4|5"),
    ("How likely is it that the customer leaves? Give a number from 1 to 5.", "1|2|3|4|5"),
    (
        "Determine the political leaning of an article: left, center-left, center, center-right, right.",
        "left|center-left|center|center-right|right",
    ),
    ("Determine stance of a tweet toward climate change (favor, against, none).", "favor|against|none"),
    ("Determine the reading age of a book: child, teen or adult.", "child|teen|adult"),
    ("Determine the root cause of an outage: network, disk or human error.", "network|disk|human error"),
    ("Toxic comment classification: toxic, non-toxic", "toxic|non-toxic"),
    ("Language identification for Slavic languages: Bulgarian, Czech, Polish.", "Bulgarian|Czech|Polish"),
    ("Emotion recognition: joy, anger, fear", "joy|anger|fear"),
    ("Spam identification for SMS: spam, ham", "spam|ham"),
    ("Answer the question with yes or no, based on the passage.", "yes|no"),
    ("Read the passage and answer the question with yes or no.", "yes|no"),
    ("Given the passage, answer the question with true or false.", "true|false"),
    ("Answer the question about the passage: yes or no?", "yes|no"),
    ("Answer each question only with YES, NO or UNKNOWN.", "YES|NO|UNKNOWN"),
    ("Rate from 1 to 5 how related two sentences are (1 = not at all, 5 = they say the same).", "1|2|3|4|5"),
    ("How many stars? Answer with a number from 1 to 5 (1 = worst, 5 = best).", "1|2|3|4|5"),
    ("Give a score between 0 and 3 for the essay: 0 = off topic, 3 = excellent.", "0|1|2|3"),
    (
        "Assign the news text to one of the German sections Weltgeschehen, Sport, Wissenschaft und Technik.",
        "Weltgeschehen|Sport|Wissenschaft und Technik",
    ),
    ("Assign the text to one of our four sections Politics, Sports and Science.", "Politics|Sports|Science"),
    ('Classify the SMS as spam or ham and return JSON with the field "label".', "spam|ham"),
    ("Sort the words into nouns, verbs and others.", "nouns|verbs|others"),
    ("Classify the review as positive or negative. Return JSON with the keys: label.", "positive|negative"),
]
COUNTS: list[str] = [
    "Write a summary of 1 to 3 sentences.",
    "Write a poem that scores 5 out of 5, with a rating of 1 to 5 under it.",
    "List 1 to 3 keywords, each with a score from 1 to 5.",
    "Answer in 1 to 5 words.",
    "Give a number of 1 to 3 examples.",
    "Given a number from 1 to 10, say its name in French.",
    "Solve the puzzle. The answer is a number from 1 to 9.",
    "Extract the rating from 1 to 5 stars that a review names.",
    "Estimate the cost of the supplies required to create the given project.",
    "Determine the capital of a country: short answer only.",
    "Determine the steps for the recipe: chop, fry, serve.",
    "Identify the parts of the sentence: subject, verb and object.",
    "Identify the entities in the text: names, dates, places.",
    "Named entity recognition: persons, places, organisations.",
    "Determine the answer: think step by step.",
]
NUMBERS: list[str] = [
    "Predict the price of a house from its description.",
    "Predict a toxicity score from 0.0 to 1.0.",
    "Predict how many likes a tweet gets.",
    "Assign a score between 0 and 100.",
    "Rate the essay from 0 to 100.",
]


@pytest.mark.parametrize("prompt", NUMBERS)
def test_numbers_are_refused_with_a_message_of_their_own(prompt: str) -> None:
    with pytest.raises(TaskError, match=r"asks for a number, and numbers are no kind of answer here: give bands"):
        read_task(prompt)


def test_regression_is_no_misspelt_generation() -> None:
    with pytest.raises(TaskError, match=r"kind: 'regression' .* bands .* as labels") as caught:
        read_task("---\nkind: regression\n---\nPredict the price of a house.")
    assert "did you mean" not in str(caught.value)


# What stands behind "whether": alternatives, or one thing that is so or not.
WHETHER: list[tuple[str, str]] = [
    ("Tell me if a recipe is vegan, vegetarian, or contains meat.", "vegan|vegetarian|contains meat"),
    (
        "Decide whether a review is positive, negative, or expresses no opinion.",
        "positive|negative|expresses no opinion",
    ),
    (
        "Decide whether a question is about history, geography, or asks for an opinion.",
        "history|geography|asks for an opinion",
    ),
    ("Predict whether the Supreme Court will rule for the petitioner or the respondent.", "petitioner|respondent"),
    (
        "Classify whether the patient should see a cardiologist, a dermatologist, a neurologist or a GP.",
        "cardiologist|dermatologist|neurologist|GP",
    ),
    ("Predict whether the customer will buy a phone, a laptop, or a tablet.", "phone|laptop|tablet"),
    ("Predict whether the stock will rise or fall.", "rise|fall"),
    ("Predict whether the team will win, lose or draw.", "win|lose|draw"),
    ("Determine whether the argument supports or opposes the claim.", "supports|opposes"),
    ("Determine whether the evidence supports or refutes a claim.", "supports|refutes"),
    ("Classify product questions - yes/no question, wh-question, statement", "yes/no question|wh-question|statement"),
    ("Classify questions: wh-question, yes/no question or statement", "wh-question|yes/no question|statement"),
    ("Classify whether a medical question and an answer match.", "yes|no"),
    ("Decide whether a comment is toxic or contains threats.", "yes|no"),
    ("Check whether the text contains insults or threats.", "yes|no"),
    ("Check whether the text contains insults, threats or slurs.", "yes|no"),
    ("Decide whether a message asks for money or personal data.", "yes|no"),
    ("Decide whether the text names a person or an organisation (yes/no).", "yes|no"),
    ("Decide whether a text mentions or describes a crime.", "yes|no"),
    ("Decide whether the customer can return or exchange the item.", "yes|no"),
    ("Say whether the reviewer would buy the product again or not.", "yes|no"),
    ("Predict whether the customer will pay or not.", "yes|no"),
    ("Decide whether posts should be removed.", "yes|no"),
]
# Alternatives that are not told from one question; the user is asked.
UNREAD: list[str] = [
    "Predict whether the borrower will repay early, keep paying or stop.",
    "Predict whether the patient will need a transfusion or a transplant.",
    "Say whether the ticket should go to a developer or a manager.",
]


@pytest.mark.parametrize("prompt", UNREAD)
def test_alternatives_are_no_question_of_yes_and_no(prompt: str) -> None:
    with pytest.raises(TaskError, match="labels were not found"):
        read_task(prompt)


SEVERAL: list[str] = [
    "Assign up to three topics to an article: economy, war, climate.",
    "Assign tags (multiple allowed) to recipes: vegan, quick, cheap.",
    "Assign at most two categories to each article: sport, war, art.",
    "Classify texts with one or more labels: joy, anger, fear.",
    "Choose all that apply: joy, anger.",
    "Multi-label classification of tweets: joy, anger, fear.",
    "Label each token as O, B-PER or I-PER.",
    "Tag every word of the sentence with its part of speech.",
    "For each word, say whether it is a noun or a verb.",
    "Assign one or more of the following categories: sport, war, art.",
    "Assign one or more genres to a film plot: drama, comedy.",
    "Pick one or more emotions: joy, anger.",
    "Classify the text into one or more of: toxic, insult, threat.",
    "Classify the text into any of the following, multiple labels possible: toxic, insult.",
    "Return all applicable labels: toxic, insult.",
    "Tag recipes with all suitable tags: vegan, quick, cheap.",
    "Assign the tags that apply: vegan, quick, cheap.",
    "An article can belong to several categories: sport, war, art.",
    "Classify an article as sport, war or art. It can have more than one label.",
    "Given a sentence, output the pos tags of all the words. Labels: Noun, Verb.",
    "Name the topics of an article (more than one is possible): sport, war, art.",
]


@pytest.mark.parametrize("prompt", SEVERAL)
def test_several_labels_an_input_make_a_generation_and_are_told(prompt: str) -> None:
    spec = read_task(prompt)
    (kind,) = [item for item in spec.inferred if item.field == "kind"]
    assert (kind.value, kind.how) == ("generation", "rules: several labels an input are asked for")


def test_the_user_has_the_last_word_on_several_labels() -> None:
    spec = read_task("---\nkind: classification\n---\nAssign up to three topics to an article: economy, war, climate.")
    assert spec.label_names == ("economy", "war", "climate")


@pytest.mark.parametrize("more", GOES_ON)
@pytest.mark.parametrize("names", ["positive or negative", "positive, negative or neutral", "good, bad, or mixed"])
@pytest.mark.parametrize("lead", ["Classify reviews as ", "Judge whether a review is ", "Sort reviews: "])
def test_a_clause_behind_the_last_label_is_none(lead: str, names: str, more: str) -> None:
    reading = read_by_rules(f"{lead}{names}{more}.")
    assert [label.name for label in reading.labels] == names.replace(" or ", ",").replace(",,", ",").replace(
        ", ", ","
    ).split(",")


@pytest.mark.parametrize(
    ("prompt", "labels"),
    [*CHOICES, *ONE_SET, *COMPOUND, *LINES, *OF_THE_INPUT, *WHETHER, *WHOLE_NAMES, *QUESTIONS, *RATED],
)
def test_a_prompt_that_asks_for_one_of_a_list_is_a_classification(prompt: str, labels: str) -> None:
    spec = read_task(prompt)
    assert (spec.kind, "|".join(spec.label_names)) == ("classification", labels)


@pytest.mark.parametrize("prompt", [*TEXTS, *COUNTS])
def test_a_prompt_that_asks_for_a_text_is_no_classification(prompt: str) -> None:
    assert read_task(prompt).kind == "generation"


@pytest.mark.parametrize("prompt", TWO_SETS)
def test_two_sets_of_labels_are_not_read_for_the_first_alone(prompt: str) -> None:
    with pytest.raises(TaskError, match=r"asks for 2 labels of each input .* a student gives one: make a task of each"):
        read_task(prompt)
    assert read_task(f"---\nkind: generation\n---\n{prompt}").kind == "generation"
    assert read_task(f"---\nlabels: [a, b]\n---\n{prompt}").label_names == ("a", "b")


def test_two_sets_are_shown_with_their_names() -> None:
    with pytest.raises(TaskError, match=r"\(sentiment: positive, negative; topic: sports, tech\)"):
        read_task("Classify the tweet. Sentiment: positive, negative. Topic: sports, tech.")


@pytest.mark.parametrize(
    ("prompt", "labels"),
    [
        ("Label the text with 0 (not hateful) or 1 (hateful).", [("0", "not hateful"), ("1", "hateful")]),
        ("Answer 1 if the two questions are duplicates, 0 if they are not.",
         [("1", "if the two questions are duplicates"), ("0", "if they are not")]),
        ("Return 'A' if the first answer is better, 'B' if the second answer is better, or 'tie'.",
         [("A", "if the first answer is better"), ("B", "if the second answer is better"), ("tie", "otherwise")]),
        ("Choose the right team:\na) sales\nb) support\n\nAnswer with the letter only.",
         [("a", "sales"), ("b", "support")]),
        ("Classify tickets: A = refund, B = delivery", [("A", "refund"), ("B", "delivery")]),
        ("Classify into: A: tech; B: money", [("A", "tech"), ("B", "money")]),
        ("Rate how clear the text is from 1 to 4 (1 = muddled, 4 = clear).",
         [("1", "muddled"), ("2", ""), ("3", ""), ("4", "clear")]),
        ("Sort tickets. Labels are:\nbilling - money\nbug - crashes", [("billing", "money"), ("bug", "crashes")]),
    ],
)  # fmt: skip
def test_what_a_prompt_says_of_its_labels_is_their_description(prompt: str, labels: list[tuple[str, str]]) -> None:
    assert list(read_by_rules(prompt).labels) == [Label(name, description) for name, description in labels]
