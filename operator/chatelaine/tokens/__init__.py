"""Trust tokens: issue, verify, cache, and the decision whether one allows an operation. Pure."""
