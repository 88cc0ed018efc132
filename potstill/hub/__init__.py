"""The Hugging Face Hub: cards, units of dataset and model, upload and download."""
