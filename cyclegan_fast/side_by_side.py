"""The layout of pix2pix's data sets (Isola et al. 2017): each file shows a pair, A on the left and B on the right.

The files are in train/, and those to test with in test/ or else in val/.
"""
