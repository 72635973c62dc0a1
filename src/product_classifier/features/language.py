"""Which language a text is written in. Used by the catalogue's statistics and by what is observed of a product."""

from functools import lru_cache
from typing import Any

# The languages of the market places that such catalogues come from: among 97, short titles find
# absurd ones.
LANGUAGES = ("de", "en", "es", "fr", "it", "nl", "pt")


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # loads a model of 5 MB

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(list(LANGUAGES))
    return identifier


def detect_language(text: str) -> str:
    """Gives the most likely of `LANGUAGES`; for a text of a few letters that is little more than a guess.

    The first call loads the model (0.3 s).
    """
    language: str = _identifier().classify(text)[0]
    return language
