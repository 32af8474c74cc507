"""The metrics of all containers that take calls, as they last reported them. A scrape of these starts no container."""

from collections.abc import Iterable, Iterator

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from deploy.records import Report


class ReportedMetrics(Collector):
    """The metrics in reports, each sample with its container as a label."""

    def __init__(self, reports: Iterable[Report]) -> None:
        self._reports = reports

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        families: dict[str, Metric] = {}
        for report in self._reports:
            for metric in text_string_to_metric_families(report.metrics):
                family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                for sample in metric.samples:
                    labels = {**sample.labels, "container": report.call}
                    family.samples.append(sample._replace(labels=labels))
        yield from families.values()


def exposition(reports: Iterable[Report]) -> bytes:
    """What a scraper reads."""
    return generate_latest(ReportedMetrics(reports))
