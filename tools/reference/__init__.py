"""The reference pages that come from code: one module a page, each with a function that gives its text."""
