"""The discriminators' memory of generated images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor

from monai_invertible.data import ImagePool


def image(number: int, batch: int = 1) -> torch.Tensor:
    """A batch of different images."""
    return torch.arange(number, number + batch, dtype=torch.float32).view(batch, 1, 1, 1).expand(batch, 2, 3, 3)


def test_until_it_is_full_images_pass_and_then_every_other_is_exchanged() -> None:
    torch.manual_seed(0)
    pool, size, seen, earlier = ImagePool(5), 2000, list(range(5)), 0
    for number in range(5):
        assert torch.equal(pool(image(number)), image(number))
    stored = set(seen)
    for number in range(5, size):
        got = int(pool(image(number))[0, 0, 0, 0])
        assert got == number or got in stored
        if got != number:
            stored = stored - {got} | {number}
            earlier += 1
    assert {int(each[0, 0, 0]) for each in pool.state_dict()[""]} == stored
    assert earlier / size == pytest.approx(0.5, abs=0.04)  # 3.6 standard deviations


def test_every_place_is_exchanged() -> None:
    torch.manual_seed(0)
    pool = ImagePool(3)
    for number in range(60):
        pool(image(number))
    assert pool.state_dict()[""].min() >= 3


def test_a_pool_of_no_size_lets_everything_through() -> None:
    pool, images = ImagePool(0), image(0, 4)
    assert torch.equal(pool(images), images)
    assert pool.state_dict() == {}


def test_names_are_apart_and_a_batch_is_many_images() -> None:
    pool = ImagePool(3)
    pool(image(0, 2), "x")
    pool(image(10, 5), "y")
    state = pool.state_dict()
    assert state["x"].shape == (2, 2, 3, 3) and state["y"].shape == (3, 2, 3, 3)
    assert state["x"].max() < 10 <= state["y"].min()


def test_what_is_stored_is_a_copy_without_graph() -> None:
    pool, images = ImagePool(2), torch.ones(1, 1, 2, 2, requires_grad=True)
    assert not pool(images * 1).requires_grad
    pool(given := torch.zeros(1, 1, 2, 2))
    given.fill_(7)
    assert pool.state_dict()[""].flatten(1).tolist() == [[1.0] * 4, [0.0] * 4]


def test_answers_have_the_type_of_what_is_asked() -> None:
    torch.manual_seed(0)
    pool = ImagePool(1)
    pool(torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16))
    answers = [pool(torch.ones(1, 1, 2, 2)) for _ in range(10)]
    assert all(answer.dtype == torch.float32 for answer in answers) and any(not answer.any() for answer in answers)


def test_state_goes_on_where_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pool = ImagePool(4)
    for number in range(20):
        pool(MetaTensor(image(number)), "y")
    torch.save(pool.state_dict(), tmp_path / "pool.pt")
    again = ImagePool(4)
    again.load_state_dict(torch.load(tmp_path / "pool.pt", weights_only=True))
    answers = []
    for each in (pool, again):
        torch.manual_seed(1)
        answers.append(torch.cat([each(image(number), "y") for number in range(20, 40)]))
    assert torch.equal(*answers)


def test_errors() -> None:
    with pytest.raises(ValueError, match="ImagePool: size must not be negative, got -1. Use 0"):
        ImagePool(-1)
    pool = ImagePool(3)
    pool(image(0, 3))
    with pytest.raises(ValueError, match=r"all images must have one shape, got \(2, 4, 4\) after \(2, 3, 3\)"):
        pool(torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match="the state must fit into 2 images, got 3. Use size=3"):
        ImagePool(2).load_state_dict(pool.state_dict())
