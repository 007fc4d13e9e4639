"""What a run leaves for people and scripts: a record, a page, events, metrics, and a call for help when it fails.

journal                                 events as they happen, one JSON document a line
finish                                  the end of every run, whatever became of it
records status                          what runs have left, read again
material facts statistics models        what a page says
album media draw charts                 pictures: chosen, bounded, drawn
stills moving sound strips              sections that are made of pictures
page index                              HTML, from the templates beside
metrics hook                            Prometheus, and the command of ``on_failure``
"""
