"""A client of the prediction API: signs in, asks, waits where it is told to. Needs httpx only.

from product_classifier.client import Client

with Client("http://localhost:8000") as client:
client.login("admin", password)
answer = client.predict(designation="Piscine gonflable 3 m", image=Path("photo.jpg"))
answer.code, answer.label, answer.confidence, answer.decision
"""

from product_classifier.client.client import Client
from product_classifier.client.errors import APIError, ServerUnreachable
from product_classifier.client.results import (
    BatchAnswer,
    Prediction,
    ProblemOfOne,
    Product,
    RankedType,
)

__all__ = [
    "APIError",
    "BatchAnswer",
    "Client",
    "Prediction",
    "ProblemOfOne",
    "Product",
    "RankedType",
    "ServerUnreachable",
]
