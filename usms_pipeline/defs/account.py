"""One account in Dagster: its names, its settings, and its errors as failures.

Settings stay text and templates until a run starts: no value of the environment is kept here.
"""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from pydantic import PrivateAttr

from usms_pipeline import settings as core_settings
from usms_pipeline.contract import wording
from usms_pipeline.contract.errors import (
    ServiceDown,
    SettingProblem,
    SettingsError,
    SourceUnavailable,
    UsmsError,
)
from usms_pipeline.defs.attributes import Op
from usms_pipeline.settings import Need, Settings

if TYPE_CHECKING:
    from usms_pipeline.pipeline import OnProgress, Pipeline, Progress
    from usms_pipeline.store.dataset import Window
    from usms_pipeline.warehouse import Change

PARTITION: Final = "dagster/partition"
RANGE_START: Final = "dagster/asset_partition_range_start"
RANGE_END: Final = "dagster/asset_partition_range_end"

LOG_EVERY_SECONDS: Final = 5.0
"""A line of Dagster's log costs about 3 ms, more than asking about a hundred sessions."""
LOG_EVERY_SHARE: Final = 1 / 3
"""Pause between lines, as a share of the time so far: a run of four hours logs 25."""

RunContext = dg.AssetExecutionContext | dg.AssetCheckExecutionContext


@dataclass(frozen=True)
class Account:
    """What must be known of an account before a run.

    ``known`` are its settings, right as far as they can be before a run; ``given`` those of its
    defs.yaml, as text. ``keys``: of assets whose keys the project has changed.
    """

    days: dg.DailyPartitionsDefinition
    prefix: tuple[str, ...] = ("usms",)
    owners: tuple[str, ...] = ()
    known: Settings = field(default_factory=Settings.model_construct)
    given: Mapping[str, str] = field(default_factory=dict)
    op: Op = field(default_factory=Op)
    keys: Mapping[str, dg.AssetKey] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the account's name in one word, unique in a project; its assets' group."""
        return "_".join(self.prefix)

    @property
    def resource(self) -> str:
        """Return the name of the account's resource and pool; ``usms`` may be taken by another."""
        return f"{self.name}_account"

    @property
    def job_name(self) -> str:
        """Return the name of the account's job."""
        return f"refresh_{self.name}"

    def key(self, asset: str) -> dg.AssetKey:
        """Return the key of one of the account's assets."""
        return self.keys.get(asset, dg.AssetKey([*self.prefix, asset]))

    def in_its_words(self, text: str) -> str:
        """Return a message of the core with the account's names for its settings.

        A setting of its defs.yaml that is one variable is called as that, any other as the
        attribute; one that is not there is read from the variable that the sentence names.
        """
        attributes = []

        def word(found: re.Match[str]) -> str:
            name = found[1].lower()
            if name not in self.given:
                return found[0]
            if named := _ONE_VARIABLE.fullmatch(self.given[name]):
                return named[1]
            attributes.append(name)
            return f"`{name}`"

        text = _SETTING.sub(word, text)
        if not attributes:
            return text
        its = " and ".join(f"`{name}`" for name in dict.fromkeys(attributes))
        return f"{text}\n{its}: see the defs.yaml of the account {'/'.join(self.prefix)}."


_SETTING: Final = re.compile(rf"\b{core_settings.PREFIX}([A-Z_]+)\b")
_ONE_VARIABLE: Final = re.compile(r"\s*\{\{\s*env\.(\w+)\s*\}\}\s*")


class AccountResource(dg.ConfigurableResource[Any]):
    """The settings of one account, as text; what is not given is read from ``USMS_…`` by a run."""

    given: dict[str, str]

    # Dagster makes one resource a run and process: so folding tells publishing what it changed.
    _changes: list[Change] = PrivateAttr(default_factory=list)

    def load(self, *needs: Need) -> Settings:
        """Read the settings now. Raises ``SettingsError`` with every missing and wrong one."""
        read = {name: resolve(text) for name, text in self.given.items()}
        unset = [name for name, value in read.items() if value in (None, "") and self.given[name]]
        if unset:
            raise SettingsError([
                SettingProblem(
                    core_settings.variable(name),
                    f"is given as {self.given[name]}, which is not set",
                    core_settings.example(name),
                )
                for name in unset
            ])  # fmt: skip
        return core_settings.load(needs, **read)

    def pipeline(
        self,
        *needs: Need,
        on_progress: OnProgress | None = None,
        processes: Callable[[], int] = lambda: 1,
    ) -> Pipeline:
        """Return the pipeline of this account, one of several processes that share its ceiling.

        Raises ``SettingsError``.
        """
        from usms_pipeline.pipeline import Pipeline

        settings = self.load(*needs)
        if ceiling := settings.max_requests_per_second:
            ceiling /= processes()
            settings = settings.model_copy(update={"max_requests_per_second": ceiling})
        return Pipeline(settings, on_progress=on_progress, changes=self._changes)


def resolve(text: str) -> Any:
    """Fill in ``{{ env.NAME }}``; None where the whole text is a variable that is not set."""
    return dg.ResolutionContext.default().resolve_value(text) if "{{" in text else text


def processes(instance: dg.DagsterInstance, account: Account) -> int:
    """Return how many processes share the account's ceiling: as it says, else its pool's limit."""
    if account.op.processes:
        return account.op.processes
    pool = account.op.pool or account.resource
    limits = {one.name: one.limit for one in instance.event_log_storage.get_pool_limits()}
    default = instance.get_concurrency_config().pool_config.default_pool_limit
    return limits.get(pool) or default or 1


@contextmanager
def core(context: RunContext, account: Account, *needs: Need) -> Iterator[tuple[Pipeline, Window]]:
    """Yield the account's pipeline and the run's window of days, inclusive at both ends.

    Raises as ``told`` does.
    """
    with told(account):
        resource = getattr(context.resources, account.resource)
        pipeline = resource.pipeline(
            *needs,
            on_progress=progress_log(context.log.info),
            processes=lambda: processes(context.instance, account),
        )
        yield pipeline, window(context.run.tags, pipeline)


@contextmanager
def told(account: Account) -> Iterator[None]:
    """Turn any error into a ``dagster.Failure`` whose message is safe to store.

    Only where the service or the source is down may it be retried, if the account says so.

    Errors that nobody expected quote what they met, and so may what they came of: of these only
    the kind is told, and the place in the code. Errors that Dagster raises itself pass unchanged.
    """
    try:
        yield
    except (dg.Failure, dg.RetryRequested, dg.DagsterError):
        raise
    except UsmsError as error:
        raise failure(error, account) from None
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise dg.Failure(
            f"Unexpected {type(error).__name__}: see line {place.lineno} of "
            f"{Path(place.filename).name}. Everything collected so far is saved. Please report "
            "this error with what `usms --debug run` prints.",
            allow_retries=False,
        ) from None


def window(tags: Mapping[str, str], pipeline: Pipeline) -> Window:
    """Return the days that a run's tags ask for; the open window where they name none."""
    from usms_pipeline.store.dataset import Window

    first, last = tags.get(RANGE_START), tags.get(RANGE_END)
    if PARTITION in tags:
        first = last = tags[PARTITION]
    if not first or not last:
        return pipeline.open_window()
    return Window(date.fromisoformat(first), date.fromisoformat(last))


def progress_log(
    say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> OnProgress:
    """Return a listener that logs the progress and the time left.

    Every few seconds at first, and no more often than a run of hours needs.
    """
    began = said_at = clock()
    begun: dict[str, tuple[float, int]] = {}

    def listen(progress: Progress) -> None:
        nonlocal said_at
        now = clock()
        since, done = begun.setdefault(progress.phase, (now, progress.done))
        if now - said_at < max(LOG_EVERY_SECONDS, LOG_EVERY_SHARE * (said_at - began)):
            return
        said_at = now
        total, stats = progress.total, progress.stats
        line = f"{progress.title}: {progress.counted}".removesuffix(": ")
        if stats:
            line += f"; {wording.counted(stats.requests, 'request')}"
        if stats and stats.retries:
            line += f", {wording.count(stats.retries)} retried"
        if total and progress.done > done and now > since:
            left = (total - progress.done) * (now - since) / (progress.done - done)
            line += f"; about {wording.duration(left)} left"
        say(line)

    return listen


def failure(error: UsmsError, account: Account) -> dg.Failure:
    """Return an error of the core as Dagster shows it: its message, and the counts so far."""
    sentence = account.in_its_words(str(error))
    if isinstance(error, SettingsError) and account.prefix != ("usms",):
        sentence += f"\nAccount {account.name}: its defs.yaml may set them too, in lower case."
    stats = getattr(error, "stats", None)
    counts = {
        name.replace("ids_", "sessions_"): value
        for name in ("requests", "retries", "ids_asked", "ids_answered")
        if isinstance(value := getattr(stats, name, None), int)
    }
    return dg.Failure(sentence, metadata=counts, allow_retries=isinstance(error, _MAY_PASS))


_MAY_PASS: Final = (ServiceDown, SourceUnavailable)
"""Errors that may be gone if the step is retried later."""
