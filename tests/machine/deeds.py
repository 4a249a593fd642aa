"""What the inhabitants of the world do: one function for each verb, with what they make of the answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from core import queue_manager as queue
from core.domain.lifecycle import Cause, TaskStatus
from core.domain.ordering import PriorityType
from core.domain.task import Claimed, Ending, Moved, Reason, Submission
from tests.machine.calls import Call, Fate
from tests.machine.trail import hold
from tests.machine.world import CAPPED, GATES, OWNER, PLAIN, TYPES, Worker, World
from tests.worker_secret import SECRET

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS = 40


def submission(world: World, **more: Any) -> Submission:
    return Submission(id=world.name(), **{"owner_id": OWNER, "type": TYPES[0], "queue": PLAIN, **more})


def submit(world: World, tasks: Sequence[Submission], fate: Fate = Fate.ACK) -> Call:
    world.known.update({task.id: task for task in tasks})

    def told(answers: list[Any]) -> None:
        world.acked |= {answer.id for answer in answers}

    return world.step(Call("submit", lambda tx: queue.submit(tx, tasks), fate, told=told))


def submit_keyed(world: World, key: str, body: bytes, fate: Fate = Fate.ACK, **more: Any) -> Call:
    """Send a request with an idempotency key; whoever hears nothing sends it again, with an id of its own."""
    task = submission(world, **more)
    world.known[task.id] = task
    world.keyed.setdefault(key, {})[task.id] = body
    request = queue.KeyedRequest(owner_id=OWNER, key=key, body_hash=body, submissions=[task])

    def told(answers: list[queue.KeyedAnswer]) -> None:
        [answer] = answers
        bodies = world.keyed[key]
        if answer.outcome is queue.KeyedOutcome.CONFLICT:
            hold("a conflict has another body", key, when=len(set(bodies.values())) > 1)
            return
        [found] = answer.submitted
        hold("I10 a key has one answer", key, when=world.answers.setdefault(key, found.id) == found.id)
        hold("I10 the answer is to this body", key, when=bodies.get(found.id) == body)
        world.acked.add(found.id)

    def unknown(_answer: Any, _committed: bool) -> None:  # noqa: FBT001 - as Call has it
        world.dropped.append((key, body))

    return world.step(Call("submit_keyed", lambda tx: queue.submit_keyed(tx, [request]), fate, told, unknown))


def claim(
    world: World,
    worker: Worker,
    ids: Sequence[UUID],
    fate: Fate = Fate.ACK,
    *,
    solo: bool = False,
    types: Sequence[str] = TYPES,
) -> Call:
    token = world.name()

    def told(found: list[Claimed]) -> None:
        worker.held.update({task.id: task for task in found})
        worker.ghosts.extend(found)

    def unknown(found: list[Claimed], _committed: bool) -> None:  # noqa: FBT001 - as Call has it
        worker.lost.append((list(ids), token))
        worker.ghosts.extend(found)  # it saw the rows before the COMMIT was lost

    verb = partial(queue.claim, ids=list(ids), worker=worker.id, secret=SECRET, claim=token, types=types, solo=solo)
    return world.step(Call("claim", verb, fate, told, unknown))


def recover(world: World, worker: Worker) -> None:
    """Read back a claim whose answer was lost."""
    if worker.lost:
        ids, token = worker.lost.pop()
        found = world.run(queue.claimed_under(world.observer, ids, token, worker=worker.id, secret=SECRET))
        worker.held.update({task.id: task for task in found})


def ending(task: Claimed, kind: str) -> Ending:
    """How an attempt ends. Its result is its claim, so that everyone can see whose result a task has."""
    plain = {"id": task.id, "attempt": task.attempt, "claim": task.claim}
    match kind:
        case "success":
            return Ending(**plain, cause=Cause.SUCCEED, reason=Reason.RETURNED, result=f'"{task.claim}"')
        case "error":
            return Ending(**plain, cause=Cause.RETRY, reason=Reason.ERROR, failures=1, delay=60.0, error='{"m": 1}')
        case "later":
            return Ending(**plain, cause=Cause.RETRY, reason=Reason.RETRY_LATER, delay=3600.0)
        case "failure":
            return Ending(**plain, cause=Cause.GIVE_UP, reason=Reason.ERROR, failures=1, error='{"m": 1}')
        case "release":
            return Ending(**plain, cause=Cause.RELEASE, reason=Reason.RELEASED)
        case "suspect":
            return Ending(**plain, cause=Cause.RELEASE, reason=Reason.SUSPECT, isolation=2)
        case "crash":
            return Ending(**plain, cause=Cause.QUARANTINE, reason=Reason.CRASH, crashes=1)
        case "stop":
            return Ending(**plain, cause=Cause.STOP, reason=Reason.CANCELLED)
        case "forgotten":
            return Ending(**plain, cause=Cause.RELEASE, reason=Reason.FORGOTTEN)
    raise ValueError(kind)


KINDS = ("success", "error", "later", "failure", "release", "suspect", "crash", "stop")


def finish(world: World, endings: Sequence[Ending], fate: Fate = Fate.ACK) -> Call:
    """Report endings as a worker does: of those that do not come back, tell what is locked, recorded and fenced."""

    async def verb(tx: Any) -> tuple[list[Moved], set[Any], set[Any], list[Ending]]:
        moved = await queue.finish(tx, endings)
        ids = {row.id for row in moved}
        missing = [item for item in endings if item.id not in ids]
        locked = await queue.still_held(tx, missing) if missing else set()
        rest = [item for item in missing if (item.id, item.attempt, item.claim) not in locked]
        mine = await queue.ended_under(tx, rest) if rest else set()
        fenced = [item for item in rest if (item.id, item.attempt, item.claim) not in mine]
        if fenced:
            await queue.record_fenced(tx, fenced)
        return moved, mine, locked, fenced

    def told(answer: tuple[list[Moved], set[Any], set[Any], list[Ending]]) -> None:
        moved, mine, locked, fenced = answer
        ids = {row.id for row in moved}
        settled = [item for item in endings if (item.id, item.attempt, item.claim) not in locked]
        _let_go(world, settled)
        for item in settled:
            pair = (str(item.id), item.attempt, str(item.claim))
            if item.id in ids or (item.id, item.attempt, item.claim) in mine:
                world.ended[pair] = item.reason.value
        world.fenced |= {(str(item.id), item.attempt, str(item.claim)) for item in fenced}
        world.seen["fenced"] += len(fenced)
        if settled:
            world.spent.append(settled)
        if later := [item for item in endings if item not in settled]:
            world.unsure.append(later)

    def unknown(_answer: Any, _committed: bool) -> None:  # noqa: FBT001 - as Call has it
        world.unsure.append(list(endings))

    return world.step(Call("finish", verb, fate, told, unknown))


def _let_go(world: World, endings: Sequence[Ending]) -> None:
    for worker in world.workers:
        for item in endings:
            if item.id in worker.held and worker.held[item.id].claim == item.claim:
                del worker.held[item.id]


def note(world: World, kind: str | None) -> Any:
    """Remember acknowledged moves by the event that they must have left."""

    def told(moved: list[Moved]) -> None:
        for row in moved:
            asked = row.status is TaskStatus.CANCELLING
            world.moved[row.id, "CANCEL_REQUESTED" if asked else kind or row.status.value] += 1

    return told


def cancel(world: World, ids: Sequence[UUID], fate: Fate = Fate.ACK, *, force: bool = False, grace: float = 60) -> Call:
    verb = partial(queue.cancel, ids=ids, owner_id=OWNER, by="owner", force=force, grace=grace)
    return world.step(Call("cancel", verb, fate, note(world, "CANCELLED")))


def redrive(world: World, ids: Sequence[UUID], fate: Fate = Fate.ACK) -> Call:
    verb = partial(queue.redrive, ids=ids, owner_id=None, by="admin")
    return world.step(Call("redrive", verb, fate, note(world, "REDRIVEN")))


def reprioritize(world: World, ids: Sequence[UUID], priority: PriorityType, fate: Fate = Fate.ACK) -> Call:
    verb = partial(queue.reprioritize, ids=ids, priority=priority, owner_id=OWNER, by="owner")
    return world.step(Call("reprioritize", verb, fate, note(world, "REPRIORITIZED")))


def trespass(world: World, ids: Sequence[UUID]) -> Call:
    """Another owner tries it all: nothing moves."""

    async def verb(tx: Any) -> list[Moved]:
        moved = await queue.cancel(tx, ids, owner_id=OWNER + 1, by="thief", force=True)
        moved += await queue.redrive(tx, ids, owner_id=OWNER + 1, by="thief")
        return moved + await queue.reprioritize(tx, ids, PriorityType.HIGH, owner_id=OWNER + 1, by="thief")

    return world.step(
        Call("trespass", verb, Fate.ACK, lambda moved: hold("another owner moved it", moved, when=not moved))
    )


DUTIES: dict[str, Any] = {
    "rescue": lambda tx: queue.rescue(tx),  # noqa: PLW0108 - looked up when called: a mutation may replace it
    "promote_due": lambda tx: queue.promote_due(tx),  # noqa: PLW0108 - looked up when called: a mutation may replace it
    "gate": lambda tx: queue.promote_gated(tx, GATES, types=TYPES),
    "demote": lambda tx: queue.demote(tx, types=TYPES[:1], unannounced=True),
    "expire": lambda tx: queue.expire(tx),  # noqa: PLW0108 - looked up when called: a mutation may replace it
    "cancel_overdue": lambda tx: queue.cancel_overdue(tx),  # noqa: PLW0108 - looked up when called: a mutation may replace it
    "regate": lambda tx: queue.regate(tx, CAPPED),
}
_LEAVES_NO_EVENT = {"promote_due", "gate", "demote", "regate", "raise_floors"}


def lead(world: World, who: int, duty: str, fate: Fate = Fate.ACK, work: Any = None) -> Call:
    """One of two who believe to lead does one of the leader's duties, under the epoch that it once took."""
    epoch, known = world.epochs[who], world.look().epoch

    async def verb(tx: Any) -> Any:
        await queue.guard(tx, epoch)
        return await (work or DUTIES[duty])(tx)

    def passed(_answer: Any, _committed: bool = False) -> None:  # noqa: FBT001, FBT002 - as Call has it
        hold("I7 a deposed leader wrote", (duty, epoch, known), when=epoch >= known)

    def told(moved: Any) -> None:
        passed(moved)
        world.seen[duty] += moved if isinstance(moved, int) else len(moved)
        if duty not in _LEAVES_NO_EVENT:
            note(world, "RESCUED" if duty == "rescue" else None)(
                [row for row in moved if duty != "rescue" or row.status not in {"CANCELLED", "QUARANTINED"}]
            )

    def deposed() -> None:
        world.seen["deposed"] += 1

    return world.step(Call(duty, verb, fate, told, passed, deposed))


def raise_floors(world: World, who: int, fate: Fate = Fate.ACK) -> Call:
    """Raise floors by what every look so far has settled."""
    work = partial(queue.raise_floors, settled=world.settled.seq, step=1)
    return lead(world, who, "raise_floors", fate, work)


def take_over(world: World, who: int, fate: Fate = Fate.ACK) -> Call:
    return world.step(Call("take_epoch", partial(queue.take_epoch, holder=UUID(int=who)), fate, world._leads(who)))


def bury(world: World, worker: Worker, *, seen: int | None = None) -> Call:
    """Declare a worker dead on the beat that was seen last; an old one must not kill."""
    beats = world.look().beats
    if worker.id not in beats:
        return Call("mark_dead", queue.live_workers, Fate.ACK)
    beat = beats[worker.id] if seen is None else seen

    def told(dead: bool) -> None:  # noqa: FBT001 - as the verb has it
        hold("I8 death by an old beat", worker, when=not dead or beat == beats[worker.id])

    return world.step(Call("mark_dead", partial(queue.mark_dead, worker=worker.id, beat_seq=beat), Fate.ACK, told))


def beat(world: World, place: int) -> None:
    """Beat; who learns that it is dead drops everything and comes back under a new id. It forgets no ghost."""
    worker = world.workers[place]
    asked = world.run(queue.beat(world.observer, worker.id, secret=SECRET, free_sync=1, free_async=0))
    if not asked.alive:
        world.workers[place] = world.join()
        world.workers[place].ghosts = worker.ghosts


def take_stock(world: World, worker: Worker, fate: Fate = Fate.ACK) -> Call | None:
    """Release what PostgreSQL says that a worker holds and it knows nothing of."""
    rows = world.run(queue.inventory(world.observer, worker.id, secret=SECRET))
    known = {task.claim for task in worker.held.values()}
    lost = [
        Ending(id=row.id, attempt=row.attempt, claim=row.claim, cause=Cause.RELEASE, reason=Reason.FORGOTTEN)
        for row in rows
        if row.claim not in known
    ]
    return finish(world, lost, fate) if lost else None


def configure(world: World, fate: Fate = Fate.ACK, *, most: int, per_key: int) -> Call:
    async def verb(tx: Any) -> Any:
        await queue.set_limits(tx, CAPPED, max_concurrent=most, max_per_key=per_key)
        return await world.count_active(tx)

    def unknown(found: Any, committed: bool) -> None:  # noqa: FBT001 - as Call has it
        if committed:
            world.capped(found)

    return world.step(Call("set_limits", verb, fate, world.capped, unknown))


def pause(world: World, name: str, fate: Fate = Fate.ACK, *, paused: bool) -> Call:
    return world.step(Call("pause", partial(queue.set_paused, queue=name, paused=paused), fate))


def heal_and_drain(world: World) -> None:
    """End all faults: open calls end, the dead are buried, one leader and one worker remain. Then all must end."""
    _heal(world)
    worker = world.join()
    world.workers.append(worker)
    for _ in range(ROUNDS):
        live = world.live()
        if not live:
            break
        world.run(world.pass_time())
        for duty in ("rescue", "cancel_overdue", "expire", "promote_due", "regate", "gate"):
            lead(world, 1, duty)
        claim(world, worker, live, solo=True)
        finish(world, [ending(task, "success") for task in worker.held.values()])
        world.check()
    hold("I1 everything comes to an end", world.live(), when=not world.live())


def _heal(world: World) -> None:
    while world.line.calls:
        for call in world.line.open:
            world.resolve(call, Fate.ACK)
    world.check()
    for worker in world.workers:
        while worker.lost:
            recover(world, worker)
        bury(world, worker)
    for endings in [*world.unsure, *world.spent]:
        finish(world, endings)
    while world.dropped:
        submit_keyed(world, *world.dropped.pop())
    world.check()
    take_over(world, 1)
    for name in (PLAIN, CAPPED):
        pause(world, name, paused=False)
