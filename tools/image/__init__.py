"""The product as an OCI image, made without a container engine."""
