// Weights of Sphinx's search; see https://www.sphinx-doc.org/en/master/usage/configuration.html#confval-html_search_scorer
var Scorer = {
  // a page that tells how to do something comes before one that tells how it is made
  score: result => {
    const page = result[0], score = result[4]
    if (GUIDES.includes(page)) return score+4
    if (['changelog', 'protocol'].includes(page)) return score-3
    return score
  },
  objNameMatch: 40, objPartialMatch: 25,
  objPrio: {0: 15, 1: 5, 2: -5}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
}
