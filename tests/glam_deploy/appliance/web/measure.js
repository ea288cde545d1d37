// What a person would see of a page: whether it fits, what is cut off, and the contrast (WCAG 2.2) of every text.
() => {
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (colour) => colour.match(/[\d.]+/g).map(Number);
  const over = (top, below) => {
    const a = top[3] ?? 1;
    return [0, 1, 2].map((i) => top[i] * a + below[i] * (1 - a));
  };
  const ground = (element) => {
    const own = parse(getComputedStyle(element).backgroundColor);
    if ((own[3] ?? 1) === 1) return own;
    return over(own, element.parentElement ? ground(element.parentElement) : [255, 255, 255]);
  };
  const contrast = {};
  const hidden = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility() || element.closest(".hidden, .skip, meter, title")) continue;
    const style = getComputedStyle(element);
    const ink = parse(element.closest("svg") ? style.fill : style.color);
    const [dark, light] = [luminance(ink), luminance(ground(element))].sort((a, b) => a - b);
    contrast[text] = Math.min((light + 0.05) / (dark + 0.05), contrast[text] ?? 99);
    const range = document.createRange();
    range.selectNodeContents(walker.currentNode);
    const box = range.getBoundingClientRect();
    if (box.right > innerWidth + 0.5 || box.left < 0) hidden.push(text);
  }
  for (const scroller of document.querySelectorAll(".scroll"))
    if (scroller.scrollWidth > scroller.clientWidth) hidden.push(scroller.querySelector("caption").textContent);
  return { needed: document.documentElement.scrollWidth, width: innerWidth, contrast, hidden };
}
