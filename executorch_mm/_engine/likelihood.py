"""How likely given tokens are: read as a text is, not generated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from executorch_mm import _core
from executorch_mm.errors import ExecutionError, InputError, RequestStoppedError
from executorch_mm.sampling import deadline_ns

Scores = list[tuple[float, bool]]  # ln p of each token, NaN where nothing was before it; was it the likeliest


class Limits:
    """When a request that has no half of an answer to give is given up.

    Args:
        session: Which serves it.
        timeout: Seconds since its beginning; None for no limit.

    Attributes:
        end_ns: When it is late.
    """

    def __init__(self, session: _core.Session, timeout: float | None) -> None:
        self._session = session
        self._timeout = timeout
        self.end_ns = deadline_ns(timeout, session.timings.start_ns)

    def check(self) -> None:
        """Returns where it may go on.

        Raises:
            RequestStoppedError: It was stopped, or is late.
        """
        if self._session.is_cancelled:
            raise RequestStoppedError("stop() ended the request before its result was there")
        if _core.now_ns() >= self.end_ns:
            raise RequestStoppedError(f"the request had no result after timeout={self._timeout} seconds")


@contextmanager
def apart(session: _core.Session) -> Iterator[_core.Session]:
    """A session that has read what this one has; whatever it reads, this one stands as it did.

    Raises:
        InputError: The model's state can neither be forked nor copied.
    """
    try:
        branch = session.fork()
    except InputError:  # the model holds one conversation where it runs
        saved = session.save()
        try:
            yield session
        finally:
            session.restore(saved)
    else:
        branch.share_cancel(session)
        yield branch


def read_scored(session: _core.Session, ids: Sequence[int], limits: Limits) -> Scores:
    """Reads tokens and says how likely each was.

    Args:
        session: Stands before them.
        ids: The tokens.
        limits: Looked at before each call of the model.
    """
    scores: Scores = []
    while len(scores) < len(ids):
        limits.check()
        scores += session.read_scored(ids[len(scores) :], limits.end_ns)
    return scores


def log_probabilities(
    session: _core.Session,
    sequences: Sequence[Sequence[int]],
    end_ids: Sequence[int],
    limits: Limits,
) -> list[float]:
    """The logarithm of the probability of each of several sequences of tokens coming next.

    In the model's own distribution. What sequences have in common is read once. Where one of them is the
    beginning of another, it counts as complete: followed by an end token.

    Args:
        session: Has just read the prompt; it stands somewhere else afterwards.
        sequences: Not empty, no two the same.
        end_ids: Tokens that end an answer.
        limits: As in `read_scored`.
    """
    found = [-math.inf] * len(sequences)
    # (how to get to the place before the branch, tokens read there, ln p of them and of the next, the branch)
    branches: list[tuple[Callable[[], object] | None, int, float, list[int]]] = []

    def visit(depth: int, total: float, members: list[int]) -> None:
        """Looks at what may follow the tokens that have been read."""
        following: dict[int, list[int]] = {}
        ended = [index for index in members if len(sequences[index]) == depth]
        for index in members:
            if len(sequences[index]) > depth:
                following.setdefault(sequences[index][depth], []).append(index)
        logprobs = session.logprobs([*following, *(end_ids if ended else ())])
        for index in ended:
            found[index] = total + log_sum(logprobs[len(following) :])
        unread = []
        for branch, logprob in zip(following.values(), logprobs, strict=False):
            if len(branch) == 1 and len(sequences[branch[0]]) == depth + 1:
                found[branch[0]] = total + logprob
            else:
                unread.append((total + logprob, branch))
        back = _way_back(session) if len(unread) > 1 else None
        for number, (sum_so_far, branch) in enumerate(reversed(unread), 1):
            branches.append((None if number == len(unread) else back, depth, sum_so_far, branch))

    visit(0, 0.0, list(range(len(sequences))))
    while branches:
        back, depth, total, members = branches.pop()
        if back is not None:
            back()
        first = sequences[members[0]]
        end = len(first) - 1 if len(members) == 1 else _common_length([sequences[index] for index in members])
        scores = read_scored(session, first[depth:end], limits)
        visit(end, total + sum(logprob for logprob, _ in scores[1:]), members)
    return found


def normalized(logprobs: Sequence[float]) -> list[float]:
    """Probabilities in these proportions that sum to 1.

    Raises:
        ExecutionError: The model gives none of them a probability.
    """
    largest = max(logprobs)
    if not all(value <= 0.001 for value in logprobs) or largest == -math.inf:  # NaN is not <=
        raise ExecutionError(f"expected logits that give the answers a probability, got {list(logprobs)}")
    weights = [math.exp(value - largest) for value in logprobs]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def log_sum(logprobs: Sequence[float]) -> float:
    """The logarithm of the sum of these probabilities."""
    largest = max(logprobs, default=-math.inf)
    if math.isinf(largest):
        return largest
    return largest + math.log(math.fsum(math.exp(value - largest) for value in logprobs))


def _way_back(session: _core.Session) -> Callable[[], object]:
    """Takes the session back to where it stands now."""
    if session.contract.is_recurrent or session.contract.ring_rows:
        saved = session.save()
        return lambda: session.restore(saved)
    position = session.position
    return lambda: session.rewind(position)


def _common_length(sequences: Sequence[Sequence[int]]) -> int:
    shortest = min(map(len, sequences))
    columns = zip(*(sequence[:shortest] for sequence in sequences), strict=True)
    return next((depth for depth, tokens in enumerate(columns) if len({*tokens}) > 1), shortest)
