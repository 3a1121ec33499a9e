"""The scoring service: HTTP in front of one ``Scorer``. Only this package imports fastapi and prometheus_client."""

# Where the service and its clients look for the token.
TOKEN_VARIABLE = "SAIQA_TOKEN"
