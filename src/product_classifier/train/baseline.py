"""The baseline every figure stands beside: word TF-IDF and a linear classifier, text only."""

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from product_classifier.train.dataset import Dataset


def score_with_tfidf(dataset: Dataset, seed: int) -> NDArray[np.float64]:
    """Trains the baseline on the training rows and scores the test rows.

    Returns:
        Decision values, shape `(n_test, K)`; no probabilities.
    """
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\S+", lowercase=False)  # noqa: S106
    train, test = dataset.sides["train"], dataset.sides["test"]
    features = vectorizer.fit_transform([dataset.texts[row] for row in train])
    classifier = LinearSVC(random_state=seed).fit(features, dataset.labels[train])
    scores = classifier.decision_function(
        vectorizer.transform([dataset.texts[row] for row in test])
    )
    values = np.full((len(test), len(dataset.label_map)), -np.inf)
    if scores.ndim == 1:  # two classes: one column
        scores = np.stack([-scores, scores], axis=1)
    values[:, classifier.classes_] = scores
    return values
