"""Makes the buckets named on the command line where they are missing.

Run in the ingest image, which has boto3: `python make_buckets.py dvc mlflow`.
"""

import os
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


def main(names: list[str]) -> None:
    """Makes what is missing; a bucket that is there stays as it is."""
    config = Config(connect_timeout=5, read_timeout=20, retries={"max_attempts": 5})
    store = boto3.client(
        "s3",
        endpoint_url=os.environ["S3_ENDPOINT_URL"],
        region_name="us-east-1",
        config=config,
    )
    there = {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}
    for name in names:
        if name in there:
            continue
        try:
            store.create_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in (
                "BucketAlreadyExists",
                "BucketAlreadyOwnedByYou",
            ):
                raise
        sys.stdout.write(f"Bucket {name}: made.\n")


if __name__ == "__main__":
    main(sys.argv[1:])
