"""The kinds as typed models, conditions, reasons, verdicts and identifiers. Imports nothing else of ours."""
