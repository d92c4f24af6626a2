"""The paper's machinery: parameters, values, provenance, figures, the book. Knows no science."""
