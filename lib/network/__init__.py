"""What imbalance costs on the wire: fabrics, placements, traffic, times. Knows arrays, never a
model.
"""
