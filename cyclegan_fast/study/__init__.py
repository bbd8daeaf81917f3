"""Asks people which of two pictures is real, as the CycleGAN paper did (Zhu et al. 2017, section 5.1.1).

The protocol is that of the paper, after Isola et al. 2017: a session is a sequence of pairs of one real and one
generated image, shown for one second, of one method; the first 10 are practice with feedback, the other 40 say how
often the method fools people. As there, the images of a pair show different scenes unless --paired is given. The page
needs no server and sends nothing: it is page.html with the study's data in it, beside a folder of images whose names
say nothing.

page.py makes the page, sessions.py reads what participants send back, analysis.py and plot.py say what they answered;
format.py describes the data that all of them share.
"""
