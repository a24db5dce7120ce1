"""What a server is told: which model, where to listen, and how much one client may ask of it."""

from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# As many as ingest takes unless it is told otherwise: what may be trained with may be asked about.
MAX_PIXELS: Final = 100_000_000


class ServerOptions(BaseModel):
    """How the server of pushed .tflite models behaves. The pipeline's settings have this group as `serving`."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    host: str = Field("127.0.0.1", description="Address to listen on; the default accepts only this machine.")
    port: int = Field(8080, ge=1, le=65_535, description="Port to listen on.")
    name: str = Field("trimline", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Name of the model in the URL.")
    workers: int = Field(1, ge=1, le=256, description="Server processes; one per core gives the most throughput.")
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Requests that each worker computes at the same time; unset: its share of the processors.",
    )
    version: int | None = Field(
        None, ge=0, description="Version to stay at; unset: the newest, followed as it is pushed."
    )
    canary_share: float = Field(
        0.0, ge=0.0, le=1.0, description="Share of requests for the newest version, while `version` has the others."
    )
    reload_s: float = Field(1.0, gt=0.0, le=3600.0, description="Seconds between looks for a new version.")
    queue: int = Field(
        16, ge=0, le=10_000, description="Requests that wait in each worker; more are answered 429 with Retry-After."
    )
    timeout_s: float = Field(
        30.0,
        gt=0.0,
        le=3600.0,
        description="Seconds for a client to send a request, for its answer to be made, and for the client to take it.",
    )
    grace_s: float = Field(30.0, ge=0.0, le=3600.0, description="Seconds to finish running requests after SIGTERM.")
    max_body_mb: float = Field(32.0, gt=0.0, le=1024.0, description="Largest request body in MB; larger ones get 413.")
    max_instances: int = Field(128, ge=1, le=100_000, description="Most images in one request.")
    max_pixels: int = Field(
        MAX_PIXELS,
        ge=1_000,
        # Pillow refuses larger images itself.
        le=178_956_970,
        description="Most pixels to decode for one request, all its images together (decompression bombs).",
    )
    api_key_file: Path | None = Field(
        None, description="File with the key that requests must bring; unset: $TRIMLINE_API_KEY, or no key at all."
    )
    tls_cert: Path | None = Field(None, description="PEM file with the certificate chain; with tls_key makes it HTTPS.")
    tls_key: Path | None = Field(None, description="PEM file with the certificate's private key.")
    grpc_port: int | None = Field(
        None, ge=1, le=65_535, description="Port of the gRPC V2 protocol, which is served only with TLS; unset: none."
    )
    sample_dir: Path | None = Field(None, description="Directory that keeps samples of requests; needs sample_share.")
    sample_share: float = Field(
        0.0, ge=0.0, le=1.0, description="Share of image files kept in sample_dir with their answer, for retraining."
    )
    sample_max: int = Field(10_000, ge=1, description="Most samples that sample_dir may hold.")

    traces: bool = Field(
        False, description="Send OpenTelemetry traces by OTLP over HTTP to $OTEL_EXPORTER_OTLP_ENDPOINT."
    )

    @property
    def address(self) -> str:
        """Host and port as URLs have them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @model_validator(mode="after")
    def _check_what_belongs_together(self) -> Self:
        if self.canary_share and self.version is None:
            raise ValueError("canary_share needs version, which gets the other requests")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key are given together or not at all")
        if self.grpc_port is not None and self.tls_cert is None:
            raise ValueError("grpc_port needs tls_cert and tls_key: gRPC is not served without encryption")
        if self.sample_share and self.sample_dir is None:
            raise ValueError("sample_share needs sample_dir")
        return self
