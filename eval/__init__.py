"""The eval suite: collections, measures, comparisons, reports."""
