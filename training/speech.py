"""Stage `speech`: the teachers say the lines of many episodes.

A shard is made by itself and named by its number, so any number of processes and machines can work on different ones,
and what was interrupted is made again.
"""

import multiprocessing
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from training.episodes import Episode
from training.scripts import episode, greeting_episode, shipped_episodes
from training.shards import write_shard
from training.teachers import Espeak, Kokoro, Spoken
from training.voices import AGENTS, ESPEAK_AGENTS, Speaker, caller

KOKORO, ESPEAK = "kokoro", "espeak"
EPISODES = {KOKORO: 16, ESPEAK: 64}
"""Episodes to a shard."""
WHOLE = {KOKORO: 0.35, ESPEAK: 0.3}
"""The share of episodes with all their exchanges; the others only greet and give their name."""
CALLED = {KOKORO: 0.3, ESPEAK: 1.0}
"""The share of whole episodes whose callers are spoken too: what they say is heard in all episodes where it fits."""
ASKS = {KOKORO: 1, ESPEAK: 3}
"""Of each exchange, how many of the caller's phrasings are spoken."""
SHARDS_PER_PROCESS = 16
SHIPPED = len(AGENTS)
"""So many of Kokoro's first shards hold the shipped personas."""


@dataclass(frozen=True)
class Job:
    """One line to be said: by the agent of an episode (`key` "kokoro-17.3/agent") or its caller."""

    key: str
    text: str
    speaker: Speaker


def episodes_of(teacher: str, shard: int, count: int | None = None) -> dict[str, tuple[Episode, Speaker]]:
    """A shard's `count` episodes, EPISODES of them if None, by name, and who is the agent: the same on every machine.

    Kokoro's first shards hold the personas that come with the service, each in every voice.
    """
    voices = list((AGENTS if teacher == KOKORO else ESPEAK_AGENTS).values())
    chosen: dict[str, tuple[Episode, Speaker]] = {}
    if teacher == KOKORO and shard < SHIPPED:
        for number, episode_ in enumerate(shipped_episodes(random.Random(f"shipped {shard}"))):
            chosen[f"shipped-{shard}.{number}"] = episode_, voices[(shard + number) % len(voices)]
        return chosen
    count = EPISODES[teacher] if count is None else count
    for number in range(count):
        name = f"{teacher}-{shard}.{number}"
        rng = random.Random(name)
        make = episode if rng.random() < WHOLE[teacher] else greeting_episode
        chosen[name] = make(rng), voices[(shard * count + number) % len(voices)]
    return chosen


def jobs(teacher: str, episodes: dict[str, tuple[Episode, Speaker]]) -> Iterator[Job]:
    """What is said in these episodes."""
    for name, (chosen, agent) in episodes.items():
        rng = random.Random(f"{name} speakers")
        for text in dict.fromkeys(chosen.lines()):
            yield Job(f"{name}/agent", text, agent)
        if len(chosen.exchanges) == 1 or (chosen.kind != "shipped" and rng.random() >= CALLED[teacher]):
            continue
        for asks in (*(exchange.asks for exchange in chosen.exchanges), chosen.repeats):
            for text in rng.sample(asks, min(ASKS[teacher], len(asks))):
                yield Job(f"{name}/caller", text, caller(rng, kokoro=teacher == KOKORO))


class _Voices:
    """The teachers of one process."""

    def __init__(self, teacher: str, folder: Path) -> None:
        self._espeak = Espeak()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._kokoro = Kokoro(folder / "kokoro", device) if teacher == KOKORO else None

    def say(self, job: Job) -> Spoken:
        if self._kokoro is None:
            return self._espeak.say(job.text, job.speaker)
        return self._kokoro.say(self._espeak.read(job.text), job.speaker)


def make_shard(teacher: str, folder: Path, shard: int, count: int | None = None) -> float:
    """Say and write one shard of `count` episodes, unless it is there. Returns its seconds of speech."""
    path = folder / f"{teacher}-{shard:05d}"
    if path.with_suffix(".json").exists():
        return 0.0
    voices = _Voices(teacher, folder)
    episodes = episodes_of(teacher, shard, count)
    said = [(job.key, job.speaker.name, job.text, voices.say(job)) for job in jobs(teacher, episodes)]
    write_shard(path, {name: chosen for name, (chosen, _) in episodes.items()}, said)
    return sum(len(spoken.pcm) for *_, spoken in said) / 24_000


def make_speech(teacher: str, folder: Path, shards: range, workers: int, report: Callable[[str], None]) -> None:
    """Make the shards that are missing, with as many processes as `workers`."""
    if teacher == KOKORO:
        Kokoro.unpack(folder / "kokoro")
    hours = 0.0
    # Processes anew now and then: espeak-ng and onnxruntime take ever more memory.
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=SHARDS_PER_PROCESS) as pool:
        for done, seconds in enumerate(pool.imap_unordered(_Shard(teacher, folder), shards), 1):
            hours += seconds / 3600
            report(f"{done} of {len(shards)} shards, {hours:.2f} hours")


@dataclass(frozen=True)
class _Shard:
    """`make_shard` with all but the number given, so that it can cross to another process."""

    teacher: str
    folder: Path

    def __call__(self, shard: int) -> float:
        return make_shard(self.teacher, self.folder, shard)
