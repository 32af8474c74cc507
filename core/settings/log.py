"""Structured logging: Python's `logging`, formatted by structlog. No prompt and no secret may be logged."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import structlog

from core.settings.sections import LogConfig

ROOT_LOGGER = "personaplex"

_PROCESSORS: list[Any] = [
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

_FORMAT_TRACEBACK = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
"""Leaves out local variables, which hold prompts and passwords."""


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger `personaplex.{name}`. Values are passed by keyword: `log.info("session ended", session=id)`."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(f"{ROOT_LOGGER}.{name}"),
        processors=[
            structlog.stdlib.filter_by_level,
            *_PROCESSORS,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return logger


def configure_logging(config: LogConfig, stream: TextIO | None = None, process: str = "") -> None:
    """Write every log line of the process, uvicorn's included, to `stream`: in columns for people or as JSON.

    None is standard error, as it is at the time of the call. `process` names the process in each line, such as
    `worker 1`, where a service has several.
    """
    stream = stream or sys.stderr
    console = config.format == "console" or (config.format == "auto" and stream.isatty())
    renderers: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.ExceptionRenderer(_FORMAT_TRACEBACK), structlog.processors.JSONRenderer()]
    )

    def name_process(_logger: Any, _method: str, line: Any) -> Any:
        return line | {"process": process} if process else line

    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_PROCESSORS,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, name_process, *renderers],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(ROOT_LOGGER).setLevel(config.level.upper())


@contextmanager
def silenced() -> Iterator[None]:
    """Log nothing of this project's meanwhile, for what says by itself what is wrong."""
    logger = logging.getLogger(ROOT_LOGGER)
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
