"""Windows of Tk and matplotlib for the command line and for Scipion: see picks, annotate, follow a training.

They need tkinter, numpy and matplotlib, run on Python 3.8 and know nothing of torch. Importing them needs tkinter and
numpy alone; matplotlib comes with the first window.
"""
