"""Every page of the site in Chromium, as wide as a desk's and as a phone's: what a reader would stumble over."""
import time
from pathlib import Path
from .site import site

widths = 1280, 390
chromium = [Path('/usr/bin/chromium'), Path('/usr/bin/chromium-browser')]
# What leads where: the best results of a search must hold the page
searches = {'plot_grads': 'plot.gradients', 'fit_one_cycle_ext': 'train.one_cycle', 'annihilation': 'f_annihilation',
            'GradRecorder': 'record.gradients', 'wandb': 'loggers', 'diverge': 'divergence', 'loss nan': 'errors',
            'mixed precision': 'compatibility', 'early stopping': 'compatibility', 'out of memory': 'errors',
            'tensorboard': 'loggers', 'fine tune': 'finetune_pretrained', 'run the tests': 'index',
            'add a cycle': 'contributing', 'install': 'index'}

faults_of_page = """() => {
  const found = [], root = document.documentElement
  if (root.scrollWidth>root.clientWidth) found.push(`scrolls sideways: ${root.scrollWidth} px`)
  for (const image of document.images) {
    const source = image.src.slice(0, 80)
    if (!image.complete || !image.naturalWidth) found.push(`a picture that does not show: ${source}`)
    if (!image.alt && !image.closest('[aria-hidden]')) found.push(`a picture without alternative text: ${source}`)
  }
  const texts = document.createTreeWalker(document.querySelector('article') || document.body, NodeFilter.SHOW_TEXT)
  while (texts.nextNode())
    if (texts.currentNode.data.includes('](') && !texts.currentNode.parentElement.closest('pre, code, script'))
      found.push(`a link that is shown as text: ${texts.currentNode.data.trim().slice(0, 60)}`)
  const ids = [...document.querySelectorAll('[id]')].map(each => each.id)
  for (const id of ids.filter((each, i) => ids.indexOf(each)<i)) found.push(`an id that is there twice: ${id}`)
  for (const sig of document.querySelectorAll('dt.sig'))
    if (sig.scrollWidth>sig.clientWidth+1) found.push(`a signature that is cut: ${sig.textContent.slice(0, 60)}`)
  for (const table of document.querySelectorAll('table.parameters'))
    if (table.scrollWidth>table.parentElement.clientWidth+1)
      found.push(`parameters that are cut: ${table.textContent.slice(0, 60)}`)
  return found
}"""

def watch(page):
    "A list that fills with what the page writes to the console, requests from outside or fails to get"
    seen = []
    def note_request(request):
        if not request.url.startswith(('file:', 'data:', 'blob:')): seen.append(f'requests {request.url}')
    page.on('console', lambda message: seen.append(f'console: {message.text}'))
    page.on('pageerror', lambda error: seen.append(f'error: {error}'))
    page.on('request', note_request)
    page.on('requestfailed', lambda request: seen.append(f'failed request: {request.url}'))
    return seen

def page_faults(browser, width):
    "What is wrong with the pages at one width: `[(page, what)]`"
    page = browser.new_page(viewport=dict(width=width, height=900))
    seen,found = watch(page),[]
    for path in sorted(site.glob('*.html')):
        page.goto(path.as_uri())
        found += [(f'{path.name} at {width} px', fault) for fault in [*page.evaluate(faults_of_page), *seen]]
        seen.clear()
    page.close()
    return found

def search_faults(browser, first=5):
    "Searches whose first results lack the page that they should lead to"
    page = browser.new_page()
    found = []
    for words,wanted in searches.items():
        page.goto(f'{(site/"search.html").as_uri()}?q={words}')
        page.wait_for_selector('ul.search li')
        page.wait_for_function('() => document.querySelector(".search-summary")?.textContent.includes("found")')
        links = page.eval_on_selector_all('ul.search li a', 'links => links.map(link => link.getAttribute("href"))')
        if not any(wanted in link for link in links[:first]):
            found.append((f'search for {words}', f'leads to {links[:first]}'))
    page.close()
    return found

def look():
    "Open all pages and search; returns whether nothing is wrong"
    from playwright.sync_api import sync_playwright
    start = time.time()
    path = next((p for p in chromium if p.exists()), None)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path and str(path), args=['--no-sandbox']) # or Playwright's own
        found = [fault for width in widths for fault in page_faults(browser, width)] + search_faults(browser)
        browser.close()
    for where,fault in found: print(f'{where}: {fault}')
    print(f'{len(list(site.glob("*.html")))} pages at {widths} px, {len(found)} faults, {time.time()-start:.0f} s')
    return not found
