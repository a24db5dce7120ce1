"""The pushed model as KServe sees it."""

import asyncio
from typing import Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model
from kserve.errors import InvalidInput
from kserve.utils.utils import generate_uuid

from serving.errors import ServingError
from serving.payload import (
    IMAGE_KEY,
    LABEL_KEY,
    PROBABILITIES_KEY,
    pixels_of_instances,
    pixels_of_tensors,
    predictions,
)
from serving.predictor import Predictor


class EdgeModel(Model):
    """Answers V1 and V2 requests with a predictor."""

    def __init__(self, name: str, predictor: Predictor) -> None:
        """Makes the model, ready to serve.

        Args:
            name: Name of the model in the addresses of the server.
            predictor: Has its model loaded.
        """
        super().__init__(name)
        self._predictor = predictor
        self.ready = True

    async def predict(
        self,
        payload: Any,
        headers: dict[str, str] | None = None,  # noqa: ARG002 - KServe passes them
        response_headers: dict[str, str] | None = None,  # noqa: ARG002
    ) -> dict[str, Any] | InferResponse:
        """Decodes and classifies the images of a request.

        The work is done in a thread, so that the event loop goes on answering health probes.

        Args:
            payload: The decoded JSON body of a V1 request, or a V2 request.
            headers: Headers of the request; not used.
            response_headers: Headers of the answer; left as they are.

        Returns:
            The V1 or the V2 answer.

        Raises:
            InvalidInput: The sender's fault; answered with status 400.
        """
        answer = self._answer_v2 if isinstance(payload, InferRequest) else self._answer_v1
        try:
            return await asyncio.to_thread(answer, payload)
        except ServingError as error:
            raise InvalidInput(str(error)) from None

    def get_input_types(self) -> list[dict[str, Any]]:
        """Returns the inputs of the V2 metadata: image files. Pixels are taken too, see serving.payload."""
        return [{"name": IMAGE_KEY, "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Returns the outputs of the V2 metadata."""
        return [
            {"name": LABEL_KEY, "datatype": "BYTES", "shape": [-1]},
            {"name": PROBABILITIES_KEY, "datatype": "FP32", "shape": [-1, len(self._predictor.labels)]},
        ]

    def _answer_v1(self, payload: object) -> dict[str, Any]:
        pixels = pixels_of_instances(payload, self._predictor)
        return predictions(self._predictor.predict(pixels), self._predictor)

    def _answer_v2(self, request: InferRequest) -> InferResponse:
        probabilities = self._predictor.predict(pixels_of_tensors(request, self._predictor))
        labels = np.array([best[0].label for best in self._predictor.top(probabilities)], dtype=object)
        return InferResponse(
            response_id=request.id or generate_uuid(),
            model_name=self.name,
            infer_outputs=[
                InferOutput(LABEL_KEY, list(labels.shape), "BYTES", labels),
                InferOutput(PROBABILITIES_KEY, list(probabilities.shape), "FP32", probabilities),
            ],
            requested_outputs=request.request_outputs,
            use_binary_outputs=request.use_binary_outputs,
        )
