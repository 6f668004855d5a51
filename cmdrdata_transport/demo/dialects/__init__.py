"""How providers answer: their documents and streams, written as their servers write them.

The numbers of each answer are drawn first, in the units of the published event, and then told in the
provider's own words: what an answer states is known without reading it.
"""
