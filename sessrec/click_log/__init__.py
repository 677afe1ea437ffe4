"""From the files of a raw click log to events in session order."""

from sessrec.click_log.events import Events, events_from_frame
from sessrec.click_log.log_format import LogFormat
from sessrec.click_log.reading import read_events
from sessrec.click_log.times import TimeUnit, parse_duration

__all__ = ["Events", "LogFormat", "TimeUnit", "events_from_frame", "parse_duration", "read_events"]
