"""The sidecar of an application: owns the caller's key, renews its tokens, and lets plain HTTP clients use its keys."""
