"""Whether what goes in fits together: coordinates and the tomogram they are said to belong to."""
