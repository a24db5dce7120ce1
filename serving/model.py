"""The pushed model as KServe sees it: the one that answers gRPC."""

from typing import Any

from kserve import InferRequest, InferResponse, Model
from kserve.errors import InvalidInput

from serving import v2
from serving.inference import Inference


class EdgeModel(Model):
    """Answers the V2 requests that KServe has read."""

    def __init__(self, inference: Inference) -> None:
        """Makes the model, ready to serve.

        Args:
            inference: Answers the requests.
        """
        super().__init__(inference.options.name)
        self._inference = inference
        self.ready = True

    async def healthy(self) -> bool:
        """Tells whether the model can answer."""
        return await self._inference.is_ready()

    async def predict(
        self,
        payload: Any,
        headers: dict[str, str] | None = None,  # noqa: ARG002 - KServe passes them
        response_headers: dict[str, str] | None = None,  # noqa: ARG002
    ) -> InferResponse:
        """Decodes and classifies the images of a request.

        Args:
            payload: A V2 request.
            headers: Metadata of the call; not used.
            response_headers: Headers of the answer; left as they are.

        Returns:
            The answer.

        Raises:
            InvalidInput: The sender's fault.
            ServingError: Too many requests are waiting, or the model does not answer.
        """
        if not isinstance(payload, InferRequest):
            raise InvalidInput("only requests of the V2 protocol are answered")
        named = payload.model_version
        version = self._inference.versions.numbered(named) if named else self._inference.versions.any()
        return await self._inference.run(version, lambda classifier: v2.infer_tensors(payload, self.name, classifier))

    def get_input_types(self) -> list[dict[str, Any]]:
        """Returns the inputs of the metadata."""
        return v2.inputs()

    def get_output_types(self) -> list[dict[str, Any]]:
        """Returns the outputs of the metadata."""
        return v2.outputs(self._inference.versions.stable)
