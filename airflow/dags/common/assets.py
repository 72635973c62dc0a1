"""What the pipeline makes, as Airflow assets: the version task of a stage updates its asset."""

from airflow.sdk import Asset

CATALOGUE = Asset(name="catalogue", uri="dvc://data/raw")
CANDIDATE = Asset(name="candidate", uri="dvc://models/candidate")
CHAMPION = Asset(name="champion", uri="dvc://models/champion.json")
PREDICTIONS = Asset(name="predictions", uri="dvc://data/predictions")
