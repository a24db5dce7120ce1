"""OpenTelemetry traces, where they are asked for: FastAPI makes the spans, and this sends them."""

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def send_traces(service: str) -> None:
    """Sends a span for each request of this process, by OTLP over HTTP, to the collector of the environment.

    OTEL_EXPORTER_OTLP_ENDPOINT names the collector; OpenTelemetry's other variables work too. Spans tell the route, the
    status and the time, and take part in the trace of a client that sends `traceparent`.

    Args:
        service: Name of the service in the traces.
    """
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
