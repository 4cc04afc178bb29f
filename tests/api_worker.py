"""One rank of a program that trains twice, encodes and evaluates through the API.

argv: base model, directory for the runs. Prints one JSON line.
"""

import json
import sys

import numpy as np
from tiny_models import SENTENCES

import mipic_llm

ROWS = [{"anchor": a, "positive": b} for a, b in zip(SENTENCES, SENTENCES[1:], strict=False)]
PAIRS = [{"sentence1": a, "sentence2": b, "score": i % 5.0}
         for i, (a, b) in enumerate(zip(SENTENCES, SENTENCES[2:], strict=False))]  # fmt: skip


def settings(base: str) -> dict:
    return {
        "model": base, "objective": {"dims": [8, 16, 32]}, "sia.layers": [1, 2, 4],
        "pic": {"ladder": ["8@1", "16@2", "32@4"]}, "tracking": {"mlflow": "off"},
        "train": {"max_steps": 3, "batch_size": 4}, "validation": PAIRS,
        "export.rehearse": False,
    }  # fmt: skip


if __name__ == "__main__":
    base, out = sys.argv[1:]
    first = mipic_llm.train(ROWS, output_dir=f"{out}/first", ds_config="zero3", **settings(base))
    try:
        mipic_llm.train(ROWS, output_dir=f"{out}/first", **settings(base))
    except mipic_llm.UserError as error:
        print(f"refused: {error}")
    own = settings(base)
    own["train"] |= {"save_every": 2}
    second = mipic_llm.train(ROWS, output_dir=f"{out}/second", ds_config="zero3", **own)
    vectors = [run.encode(SENTENCES[:5], dim=16, layer=2) for run in (first, second)]
    scores = mipic_llm.evaluate(second, PAIRS, dims=[8], layers=[4], output_dir=f"{out}/scores")
    shallow = mipic_llm.export(second, point="16@2", to=f"{out}/small")
    saved = mipic_llm.export(second, checkpoint=f"{out}/second/checkpoints/step-00000002",
                             to=f"{out}/saved")  # fmt: skip
    print(json.dumps({
        "same": bool(np.array_equal(*vectors)), "shape": vectors[0].shape,
        "value": scores[0].value, "after": second.scores[0].value, "shallow": shallow.name,
        "saved": saved.name,
    }))  # fmt: skip
