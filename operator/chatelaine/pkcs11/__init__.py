"""PKCS#11: token URIs, key templates, the worker process that holds the session, and its supervisor."""
