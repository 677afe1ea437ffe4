"""Models trained on whole sessions do on a GPU what they do on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import make_sessions, make_vocabulary

from sessrec import models
from sessrec.data.loaders import SessionLoader

SEQUENCES = [[(5 * session + 2 * step * step) % 11 for step in range(2 + session % 7)] for session in range(20)]
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("SASRec", {"hidden_size": 6, "n_heads": 2, "dropout": 0.0, "n_sample": 0}),
    ("SASRec", {"hidden_size": 6, "block": "ligr", "dropout": 0.0, "n_sample": 0}),
    ("NARM", {"hidden_size": 6, "embedding_size": 5, "dropout_p_embed": 0.0, "dropout_p_session": 0.0}),
    ("SRGNN", {"hidden_size": 6, "n_steps": 2}),
]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("name", "options"), MODELS)
def test_losses_and_scores_of_an_epoch_are_those_of_a_cpu(name: str, options: dict[str, Any]) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = getattr(models, name)(max_length=4, **options)
        model.set_vocabulary(make_vocabulary(11))
        model.double().to(device)
        optimizer, losses = model.configure_optimizers(), []
        for batch in SessionLoader(make_sessions(SEQUENCES), batch_size=6):
            batch = batch._replace(items=batch.items.to(device), lengths=batch.lengths.to(device))
            losses += model.train_window(batch, optimizer, torch.Generator(device).manual_seed(1)).tolist()
        items = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 7, 0, 0, 0, 0]], device=device)
        queries = model.eval().encode_sessions(items, torch.tensor([6, 2], device=device))
        found[device] = torch.tensor(losses), model.score(queries.flatten(0, 1), slice(None)).cpu()
    for of_cpu, of_gpu in zip(*found.values(), strict=True):
        torch.testing.assert_close(of_gpu, of_cpu, rtol=1e-5, atol=1e-5)
