"""The object store: addresses are signed here, bytes never pass through the app."""

import threading
from urllib.parse import quote

import boto3
from botocore.client import Config
from botocore.exceptions import BotoCoreError, ClientError
from werkzeug.exceptions import ServiceUnavailable

OPTIONS = Config(
    signature_version="s3v4",
    s3={"addressing_style": "path"},
    # Newer defaults sign a checksum into the address, which a plain PUT can't send.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
    connect_timeout=0.5,
    read_timeout=1.5,
    retries={"total_max_attempts": 1},
)


class StoreAway(ServiceUnavailable):
    """The object store can't be used now."""

    description = "The object store is not available now."

    def __init__(self):
        super().__init__(retry_after=2)


class Store:
    """Two clients: one that talks to the store, one that only signs its public address."""

    def init_app(self, app):
        """Keep the settings; the clients are made at first use, they take 0.1 s."""
        self._config = app.config
        self._lock = threading.Lock()
        self._clients = {}
        app.extensions["store"] = self

    def _client(self, endpoint):
        with self._lock:  # boto3 can't make two clients at once
            if endpoint not in self._clients:
                self._clients[endpoint] = boto3.session.Session().client(
                    "s3",
                    endpoint_url=self._config[endpoint],
                    aws_access_key_id=self._config["S3_ACCESS_KEY"],
                    aws_secret_access_key=self._config["S3_SECRET_KEY"],
                    region_name=self._config["S3_REGION"],
                    config=OPTIONS,
                )
            return self._clients[endpoint]

    @property
    def bucket(self):
        """Name of the bucket that uploads go to."""
        return self._config["S3_BUCKET"]

    def check(self):
        """Raise unless the bucket is there and ours."""
        self._client("S3_ENDPOINT").head_bucket(Bucket=self.bucket)

    def _ask(self, operation, **params):
        """Return the store's answer, or None when there is no such thing; raise StoreAway."""
        try:
            return getattr(self._client("S3_ENDPOINT"), operation)(Bucket=self.bucket, **params)
        except ClientError as error:
            if error.response["ResponseMetadata"].get("HTTPStatusCode") == 404:
                return None
            raise StoreAway from error
        except BotoCoreError as error:
            raise StoreAway from error

    def head(self, key):
        """Return size and etag of an object, or None when there is none."""
        answer = self._ask("head_object", Key=key)
        return answer and {"size": answer["ContentLength"], "etag": answer["ETag"].strip('"')}

    def discard(self, key):
        """Leave nothing of a key: neither an object nor parts of one."""
        found = self._ask("list_multipart_uploads", Prefix=key) or {}
        for upload in found.get("Uploads", []):
            if upload["Key"] == key:
                self.abort(key, upload["UploadId"])
        self._ask("delete_object", Key=key)

    def start(self, key, content_type):
        """Return the id under which an object's parts are collected."""
        answer = self._ask("create_multipart_upload", Key=key, ContentType=content_type)
        if answer is None:  # no bucket
            raise StoreAway
        return answer["UploadId"]

    def abort(self, key, parts_id):
        """Drop the parts that were collected."""
        self._ask("abort_multipart_upload", Key=key, UploadId=parts_id)

    def parts(self, key, parts_id):
        """Return the collected parts by number, or None when the id is not known (any more)."""
        found, marker = {}, 0
        while True:
            answer = self._ask(
                "list_parts", Key=key, UploadId=parts_id, PartNumberMarker=marker, MaxParts=1000
            )
            if answer is None:
                return None
            found |= {part["PartNumber"]: part for part in answer.get("Parts", [])}
            if not answer.get("IsTruncated"):
                return found
            marker = answer["NextPartNumberMarker"]

    def assemble(self, key, parts_id, parts):
        """Make an object of its parts; nothing happens when that was done before."""
        listed = [{"PartNumber": n, "ETag": parts[n]["ETag"]} for n in sorted(parts)]
        self._ask(
            "complete_multipart_upload",
            Key=key,
            UploadId=parts_id,
            MultipartUpload={"Parts": listed},
        )

    def part_url(self, key, parts_id, number, size):
        """Return an address that takes one part of exactly this size."""
        return self._sign(
            "upload_part", Key=key, UploadId=parts_id, PartNumber=number, ContentLength=size
        )

    def put_url(self, key, content_type, size):
        """Return an address that takes one PUT of exactly this type and size."""
        return self._sign("put_object", Key=key, ContentType=content_type, ContentLength=size)

    def get_url(self, key, filename):
        """Return an address to download an object from, under its own name."""
        disposition = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
        return self._sign("get_object", Key=key, ResponseContentDisposition=disposition)

    def _sign(self, operation, **params):
        return self._client("S3_PUBLIC_ENDPOINT").generate_presigned_url(
            operation,
            Params={"Bucket": self.bucket, **params},
            ExpiresIn=self._config["UPLOAD_URL_SECONDS"],
        )
