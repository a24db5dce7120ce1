"""Evaluator whose failures are refusals."""
