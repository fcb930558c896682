"""Why something is not as it should be, reasoned from what the API server shows. Pure: objects in, checks out."""
