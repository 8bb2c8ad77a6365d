"""Okabe and Ito's palette, which the colour-blind can tell apart and which prints."""

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
SKY, AMBER = "#56B4E9", "#E69F00"
