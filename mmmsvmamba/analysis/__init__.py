"""What can be said about a model without training it."""

from .flops import FlopCount, count_flops

__all__ = ['FlopCount', 'count_flops']
