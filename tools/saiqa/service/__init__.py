"""The scoring service: HTTP in front of one ``Scorer``. Only this package imports fastapi, uvicorn and prometheus_client."""
