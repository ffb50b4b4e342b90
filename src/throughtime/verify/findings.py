"""What an audit concludes: a sentence for each thing that is wrong with a loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

import torch

from throughtime.shapes import Tensor
from throughtime.verify.account import SAME, Account, Evidence, account_of, name_of
from throughtime.verify.letters import listed, spans
from throughtime.verify.origins import order
from throughtime.verify.tape import Use


def conclude(evidence: Evidence) -> tuple[str, list[str], dict[str, Tensor], dict[str, Tensor]]:
    """The name, the findings, and for each carrier the matrix and that of each update."""
    read = {name: steps for name, uses in evidence.uses.items() if (steps := _steps(uses, evidence.rows))}
    _check_alike(read)
    given = {name: part for name, part in evidence.updates.items() if name in read or not read}
    accounts = {name: account_of(part, evidence.spread[name], evidence.rows) for name, part in given.items()}
    matrices = {name: account.matrix for name, account in accounts.items()}
    _check_causal(matrices)
    widest = max(accounts, key=lambda name: float(matrices[name].sum()))
    updates = {name: account.updates * account.weights[:, None] for name, account in accounts.items()}
    if not evidence.given:
        return "no update", list(_no_update(evidence)), matrices, updates
    if not any(matrix.any() for matrix in matrices.values()):
        return "nothing", list(_silent(evidence)), matrices, updates
    reached = [name for name in accounts if matrices[name].any()]
    narrowest = min(reached, key=lambda name: float(accounts[name].matrix.sum()))
    name = name_of(accounts[narrowest], evidence.steps)
    findings = [
        *_graph(evidence, accounts, widest, narrowest),
        *_expected(evidence, accounts[narrowest], name),
        *order(evidence),
        *_counts(evidence, accounts[widest]),
        *_weights(evidence, accounts[widest]),
        *_pieces(accounts[narrowest]),
        *_missing(evidence, accounts[widest]),
        *_strangers(evidence, widest, matrices[widest]),
        *_padded(evidence),
        *_clipped(evidence),
        *_ungiven(evidence),
    ]
    return name, findings, matrices, updates


def _steps(uses: Sequence[Use], rows: int) -> set[int]:
    return {place // rows for use in uses for place in use.places if place >= 0}


def _check_alike(read: dict[str, set[int]]) -> None:
    """Layers that read different parts of the stream have no matrix in common."""
    for (name, steps), (other, others) in pairwise(read.items()):
        if steps - others and others - steps:
            raise ValueError(
                f"module must have recurrent layers that read the same steps; got {name} at {spans(sorted(steps))}, "
                f"{other} at {spans(sorted(others))}. Audit each as a module of its own."
            )


def _check_causal(matrices: dict[str, Tensor]) -> None:
    """Several layers whose errors go to later steps are no stack that reads one stream."""
    modules = {name.rpartition(" of ")[2] for name in matrices}
    for name, matrix in matrices.items():
        later = (matrix.abs() > SAME).triu(1)
        if len(modules) > 1 and later.any():
            t = int(later.any(1).nonzero()[0])
            use = int(later[t].nonzero()[-1])
            raise ValueError(
                f"module must have recurrent layers that read the stream step by step together; got errors at step {t} "
                f"that reach {name} at step {use}, as through a layer that reads backward, or a decoder that begins "
                "where an encoder ended. Audit each as a module of its own."
            )


def _no_update(evidence: Evidence) -> Iterator[str]:
    if "step" in evidence.events:
        yield "The recurrent weights are not given to the optimizer: they never learn."
    else:
        yield (
            "No torch.optim optimizer of the module was seen to step. Updates by hand cannot be seen: use "
            "torch.optim.SGD for the audit."
        )


def _silent(evidence: Evidence) -> Iterator[str]:
    if evidence.errors is False:
        yield (
            "No error reaches the recurrent weights: all that comes back to the outputs is zero, as from a head whose "
            "units are all off (ReLU), or from a loss that does not depend on them."
        )
    elif any(part.any() for part in evidence.spread.values()):
        yield "All gradients are thrown away: they are zeroed between backward and the optimizer's step."
    else:
        said = f" Torch says: {evidence.strict}." if evidence.strict else ""
        yield f"No error reaches the recurrent weights: the output is detached before the loss.{said}"


def _graph(evidence: Evidence, accounts: dict[str, Account], widest: str, narrowest: str) -> Iterator[str]:
    """States that are not cut where others are, or not at all."""
    says = f" Torch says: {evidence.strict}." if evidence.strict else ""
    wide, narrow = accounts[widest], accounts[narrowest]
    further = [
        name
        for name, account in accounts.items()
        if ((account.matrix.abs() > SAME) & (narrow.matrix.abs() <= SAME)).any()
    ]
    if further:
        cut = narrow.windows()
        steps = "step 0" if cut and (wide.matrix[:, 0] != 0).sum() > cut[0].every else "further back"
        are, its = ("are", "their") if len(further) > 1 else ("is", "its")
        names = " and ".join(f"{name[0]} of the LSTM" if _twice(accounts) else name for name in further)
        yield (
            f"{names} {are} not detached where the other states are: {its} errors reach {steps}, "
            f"those of {narrowest} stop where they should. Detach all states.{says}"
        )
    elif evidence.strict and not _again(evidence, wide):
        yield (
            "The state is not detached before the next window begins: backward goes through the graph a second "
            f"time. Write state = state.detach(), for every tensor of it.{says}"
        )
    elif len(wide.updates) > 1 and not [window for window in wide.windows() if window.first] and _unreplayed(evidence):
        yield (
            "The state is never detached: every update goes back to the first step, and the graph grows with the "
            "stream. Write state = state.detach() where a window begins."
        )


def _twice(accounts: dict[str, Account]) -> bool:
    """Whether the carriers are h and c of one layer."""
    return len(accounts) == 2 and {name[0] for name in accounts} == {"h", "c"}


def _again(evidence: Evidence, account: Account) -> bool:
    """Whether a later backward takes up errors once more at the uses that were made once: a loss that goes on."""
    times = (account.updates.diagonal(dim1=1, dim2=2).abs() > SAME).sum(0)
    return bool((times > 1).any()) and any(window.first for window in account.windows()) and _unreplayed(evidence)


def _unreplayed(evidence: Evidence) -> bool:
    """Whether no carrier's use is reached in two calls: windows are not run again from an older state."""
    reached = [[place for use in uses for place in use.reached] for uses in evidence.uses.values()]
    return all(len(set(places)) == len(places) for places in reached)


def _expected(evidence: Evidence, account: Account, name: str) -> Iterator[str]:
    if evidence.expect is None or name == f"BPTT({evidence.expect[0]}; {evidence.expect[1]})":
        return
    h, every = evidence.expect
    pieces = len(account.windows())
    why = ""
    if h == every == pieces:
        why = (
            f" The stream is cut into {pieces} pieces in place of pieces of {h} steps: tensor_split and chunk take the "
            "number of pieces, split takes their length."
        )
    yield f"This is {name} in place of BPTT({h}; {every}).{why}"


def _counts(evidence: Evidence, account: Account) -> Iterator[str]:
    """Errors that count more often than once."""
    if account.stacked:
        yield (
            "Errors are counted again at every later update: the gradients of the updates before are still there. "
            "Call optimizer.zero_grad() once for every step."
        )
    total = account.updates.sum(0)
    if not (total > 1 + SAME).any():
        return
    twice = [t for t in range(len(total)) if (total[t] > 1 + SAME).any()]
    worst = float(total.max())
    handed = any(
        update[t].abs().max() > SAME and update[t, t].abs() <= SAME
        for before, update in enumerate(account.updates)
        for t in twice
        if before and account.updates[:before, t].any()
    )
    if handed:
        why = (
            "an update takes them up again at older uses, as the .grad of a kept state is handed back without being "
            "cleared. Clear it, or replay the window and call backward once"
        )
    elif _again(evidence, account):
        why = "the loss still holds them at the next backward. Begin a new loss after every update"
        why += f". Torch says: {evidence.strict}" * bool(evidence.strict)
    elif len(account.updates) > 1 and (account.updates[:, twice].abs().amax(2) > 0).sum(0).max() > 1:
        why = "windows overlap, and each counts all its errors. Count only those of the steps that are new"
    else:
        why = "backward runs over them more than once before the update"
    yield f"Errors are counted up to {worst:.3g} times, at {spans(twice)}: {why}."


def _weights(evidence: Evidence, account: Account) -> Iterator[str]:
    """Errors that weigh more or less than others."""
    if _again(evidence, account):
        return
    weights = account.weights
    counted = [t for t in range(len(weights)) if weights[t] != 0]
    uneven = [t for t in counted if abs(float(weights[t]) - 1) > 2 * SAME]
    if not uneven:
        return
    most = max(uneven, key=lambda t: abs(float(weights[t]) - 1))
    same = [t for t in uneven if abs(float(weights[t] - weights[most])) < SAME]
    windows = [[t for t in range(len(weights)) if update[t, t] != 0] for update in account.updates]
    shares = [len(window) * float(weights[window[0]]) for window in windows if window]
    means = max(shares) - min(shares) < 0.05 * max(shares)
    why = (
        "the loss is the mean over each chunk, and a short chunk weighs as much as a long one. Divide the sum by a "
        "fixed number"
        if means
        else "the loss divides or scales them otherwise"
    )
    yield f"The errors at {spans(same)} weigh {float(weights[most]):.3g} times what others do: {why}."


def _pieces(account: Account) -> Iterator[str]:
    """The signature of tensor_split: n pieces, the first ones a step longer."""
    windows = account.windows()
    sizes = [window.every for window in windows]
    disjoint = all(window.h == window.every for window in windows)
    steps, count = sum(sizes), len(sizes)
    if not disjoint or count < 2 or len(set(sizes)) == 1:
        return
    even = [steps // count + 1] * (steps % count) + [steps // count] * (count - steps % count)
    if sizes == even and len(sizes) - sizes.count(sizes[0]) > 1:
        yield (
            f"The stream is cut into {count} pieces, of {sizes[0]} and {sizes[-1]} steps, in place of pieces of one "
            f"length: tensor_split({count}) takes the number of pieces, split({count}) their length."
        )


def _missing(evidence: Evidence, account: Account) -> Iterator[str]:
    """Errors that no update takes."""
    lost = [t for t in evidence.targets if account.weights[t] == 0]
    if not lost:
        return
    learned = [t for t in evidence.targets if account.weights[t] != 0]
    spread = torch.stack(list(evidence.spread.values()))[:, :, :: evidence.rows].abs().amax((0, 2))
    gaps = {b - a for a, b in pairwise(learned)}
    if len(lost) > len(learned) > 1 and len(gaps) == 1 and not spread[lost].any():
        every = gaps.pop()
        yield (
            f"Only the error at the last of every {every} steps is counted; the {every - 1} before it have none. Sum "
            "the losses of all steps of a window."
        )
        lost = [t for t in lost if t > learned[-1]] if len(evidence.targets) - 1 - learned[-1] >= every else []
    last = [t for t in lost if t > learned[-1]]
    thrown = [t for t in lost if t < learned[-1] and spread[t]]
    silent = [t for t in lost if t < learned[-1] and not spread[t]]
    if last:
        who = f"The last {len(last)} steps never learn" if len(last) > 1 else "The last step never learns"
        yield f"{who}: {_why_last(evidence, last, spread)}."
    if thrown:
        yield (
            f"The gradients of the errors at {spans(thrown)} are thrown away: they are zeroed before an optimizer's "
            "step. Call zero_grad once for every step, not for every window."
        )
    if silent:
        unread = not set(silent) & set(evidence.read)
        why = "the loop never reads them" if unread else "their outputs or losses are left out, or detached"
        yield f"The errors at {spans(silent)} are never counted: {why}."


def _why_last(evidence: Evidence, last: Sequence[int], spread: Tensor) -> str:
    them, their = ("them", "their") if len(last) > 1 else ("it", "its")
    if not set(last) & set(evidence.read):
        return f"the loop never reads {them}. Take up the rest that fills no window"
    if spread[list(last)].any():
        return f"no update follows {their} backward. Update once more at the end"
    return f"no backward takes up {their} loss. Settle the rest at the end of the stream"


def _strangers(evidence: Evidence, widest: str, matrix: Tensor) -> Iterator[str]:
    """Errors that reach other rows; row 1 has errors of its own where it changed its targets with row 0."""
    given = evidence.updates[widest].sum(0)
    reached = given.abs() > SAME * given.abs().amax(1, keepdim=True)
    own = (0, 1) if evidence.swapped else (0,)
    others = [p for p in reached.any(0).nonzero().flatten().tolist() if p % evidence.rows not in own]
    said = "rows are mixed in a state or in a batch."
    if others:
        at = spans([place // evidence.rows for place in others])
        yield f"Errors of row 0 reach the steps of row {others[0] % evidence.rows}, at {at}: {said}"
    elif evidence.swapped and any((row[row.abs() > SAME] < 0).any() for row in matrix):
        yield f"Errors of row 1 reach the steps of row 0: {said}"


def _padded(evidence: Evidence) -> Iterator[str]:
    uses = chain.from_iterable(evidence.uses.values())
    counted = {place // evidence.rows for use in uses for place in use.reached if place in evidence.padded}
    counted |= evidence.behind & {place // evidence.rows for place in evidence.padded}
    if counted:
        yield (
            f"Padded steps count in the loss: errors at {spans(sorted(counted))}. Leave them out by a mask, or by a "
            "target that the loss ignores."
        )


def _ungiven(evidence: Evidence) -> Iterator[str]:
    """Weights that no optimizer steps on."""
    names = list(evidence.ungiven)
    if names:
        shown = [*names[:3], f"{len(names) - 3} more"] if len(names) > 4 else names
        are = "is given to no optimizer: it never learns" if len(names) == 1 else ""
        yield f"{listed(shown)} {are or 'are given to no optimizer: they never learn'}."


def _clipped(evidence: Evidence) -> Iterator[str]:
    """Clipping that comes before backward, or after the step."""
    pending: list[str] = []
    for event in evidence.events:
        if event != "step":
            pending.append(event)
            continue
        if "clip" in pending and pending[-1] != "clip":
            yield (
                "Gradients are clipped before backward or after the update, so that the optimizer gets them as they "
                "are. Clip between loss.backward() and optimizer.step()."
            )
            return
        pending = []
