"""Relation losses: what two sets of vectors are to each other, and how two such tables differ.

Relational distillation, the relation loss of low-bit training and its later kin are all one chain:
normalised rows, their Gram matrix over a temperature, and the divergence of row softmaxes. What
differs is whose rows stand on which side, and how rows are summed up.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from core.errors import InputError, UnknownNameError
from core.seeding import torch_generator

REDUCTIONS = ("row_mean", "sum")


def gram(
    rows: Float[Tensor, "*#b n d"],
    columns: Float[Tensor, "*#b m d"],
    *,
    temperature: float = 1.0,
    normalise: bool = True,
) -> Float[Tensor, "... n m"]:
    """Return the similarity of every row vector with every column vector.

    Args:
        rows: Vectors that look.
        columns: Vectors that are looked at.
        temperature: What similarities are divided by, above 0.
        normalise: Whether vectors are brought to unit length, which makes similarities cosines.
    """
    if normalise:
        rows, columns = F.normalize(rows, dim=-1), F.normalize(columns, dim=-1)
    return rows @ columns.transpose(-1, -2) / temperature


def row_kl(
    student: Float[Tensor, "*b m"], teacher: Float[Tensor, "*b m"], *, reduction: str
) -> Float[Tensor, ""]:
    """Return how far the student's row softmaxes are from the teacher's: KL(teacher || student).

    Args:
        student: Similarities, one softmax per row.
        teacher: The same, of the teacher.
        reduction: "row_mean" averages over all rows; "sum" adds them up. The two differ by the
            number of rows, which is why the same loss is weighted by 1 in one paper and by 100 in
            another: it is said, never defaulted.

    Raises:
        UnknownNameError: If the reduction has another name.
    """
    if reduction not in REDUCTIONS:
        raise UnknownNameError("reduction", reduction, REDUCTIONS, param="reduction")
    divergence = F.kl_div(
        student.float().log_softmax(-1),
        teacher.float().log_softmax(-1),
        reduction="none",
        log_target=True,
    ).sum(-1)
    return divergence.mean() if reduction == "row_mean" else divergence.sum()


def pixels(feature_map: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n c"]:
    """Return a feature map as one vector per pixel, row by row.

    Args:
        feature_map: Channels first.
    """
    return feature_map.flatten(2).transpose(1, 2)


def pairwise_relations(
    rows: Float[Tensor, "b n c"], columns: Float[Tensor, "d m c"], *, temperature: float = 1.0
) -> Float[Tensor, "b d n m"]:
    """Return, for every ordered pair of samples, how their pixels resemble each other.

    Args:
        rows: Pixels of the samples that look.
        columns: Pixels of the samples that are looked at.
        temperature: What cosines are divided by.
    """
    return gram(rows[:, None], columns[None], temperature=temperature)


def gathered(rows: Float[Tensor, "n *d"]) -> Float[Tensor, "m *d"]:
    """Return the rows of all processes in order of rank, without gradient.

    Args:
        rows: As many in every process.
    """
    if not _is_shared():
        return rows.detach()
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


def gathered_with_gradient(rows: Float[Tensor, "n *d"]) -> Float[Tensor, "m *d"]:
    """Return the rows of all processes in order of rank; gradients find their way back.

    Averaged over processes, the gradient of a loss on these rows is that of one process which holds
    the joint batch.

    Args:
        rows: As many in every process.
    """
    if not _is_shared():
        return rows
    # Every process adds its rows to zeros of the others: a sum is the one exchange whose backward
    # pass every backend knows.
    before, after = dist.get_rank(), dist.get_world_size() - dist.get_rank() - 1
    parts = [torch.zeros_like(rows)] * before + [rows] + [torch.zeros_like(rows)] * after
    return all_reduce(torch.cat(parts))


class PixelQueue(nn.Module):
    """A ring of teacher pixels from earlier batches; its contents travel with the checkpoint.

    Relations with a large batch need that batch in memory, with gradients. Pixels of the past need
    neither: they are compared with, and not learned from.

    Args:
        capacity: Pixels kept.
        width: Channels of a pixel.
        seed: Of the random unit vectors that stand in the queue before the first pixels come.

    Attributes:
        rows: The pixels, unit length.
        pointer: Where the next one goes.
        num_filled: How many rows hold pixels, not random vectors.

    Raises:
        InputError: If the capacity is below 1.

    Source:
        Feng et al., arXiv 2410.07679, memory-based pixel-to-pixel distillation; Yang et al., arXiv
        2204.06986, section 3.3.
    """

    rows: Tensor
    pointer: Tensor
    num_filled: Tensor

    def __init__(self, capacity: int, width: int, *, seed: int = 0) -> None:
        super().__init__()
        if capacity < 1:
            raise InputError(f"A queue of {capacity} pixels: give at least 1.", param="capacity")
        start = torch.randn(capacity, width, generator=torch_generator(seed, "queue"))
        self.register_buffer("rows", F.normalize(start, dim=-1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.register_buffer("num_filled", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, fresh: Float[Tensor, "n d"]) -> None:
        """Overwrite the oldest rows.

        Args:
            fresh: The newest pixels of all processes (`gathered`), so that every process holds the
                same queue; normalised here.
        """
        fresh = F.normalize(fresh.float(), dim=-1)[-len(self.rows) :]
        places = (self.pointer + torch.arange(len(fresh), device=fresh.device)) % len(self.rows)
        self.rows[places] = fresh
        self.pointer.copy_((self.pointer + len(fresh)) % len(self.rows))
        self.num_filled.copy_((self.num_filled + len(fresh)).clamp(max=len(self.rows)))

    def draw(self, count: int, generator: torch.Generator) -> Float[Tensor, "m d"]:
        """Return different rows at random, of pixels only once enough are there.

        Args:
            count: How many; all rows if there are fewer.
            generator: On the CPU.
        """
        num_filled = int(self.num_filled)
        among = num_filled if num_filled >= count else len(self.rows)
        chosen = torch.randperm(among, generator=generator)[:count]
        return self.rows[chosen.to(self.rows.device)]

    def evenly_spaced(self, count: int) -> Float[Tensor, "m d"]:
        """Return the same rows at every call: a fixed number at equal distances.

        Args:
            count: How many; all rows if there are fewer.
        """
        count = min(count, len(self.rows))
        chosen = torch.arange(count, device=self.rows.device) * len(self.rows) // count
        return self.rows[chosen]


def _is_shared() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
