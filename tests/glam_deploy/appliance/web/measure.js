// What a person sees of a page in a window as high as the page: every text, cell, field, picture and button that is not
// whole (outside the window or its card, or under something else), the smallest text, and the contrast (WCAG 2.2).
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

  const unseen = [];
  const report = (why, element, text) => unseen.push(`${why}: ${element.localName}.${element.getAttribute("class")} "${text.slice(0, 60)}"`);
  const inside = (box, outer) =>
    box.left >= outer.left - 0.5 && box.right <= outer.right + 0.5 && box.top >= outer.top - 0.5 && box.bottom <= outer.bottom + 0.5;
  const look = (element, box, text, inset) => {
    const card = element.closest("figure, .card, .tile, header, footer, .banner, main, body").getBoundingClientRect();
    if (!inside(box, { left: 0, top: 0, right: innerWidth, bottom: innerHeight })) report("outside the window", element, text);
    else if (!inside(box, card)) report("outside its card", element, text);
    const layers = element.closest(".picture") ?? element.closest("svg"); // drawn over each other on purpose
    const [dx, dy] = [Math.min(inset, box.width / 2), Math.min(inset, box.height / 2)];
    const points = [[(box.left + box.right) / 2, (box.top + box.bottom) / 2]];
    if (!layers) for (const x of [box.left + dx, box.right - dx]) for (const y of [box.top + dy, box.bottom - dy]) points.push([x, y]);
    const above = points.map(([x, y]) => document.elementFromPoint(x, y)).find((hit) => !(layers ?? element).contains(hit));
    if (above !== undefined) report(`under ${above?.localName}.${above?.getAttribute("class")}`, element, text);
  };
  const LEFT_OUT = ".hidden, .skip, title, meter";
  const shown = (element) => element.checkVisibility({ visibilityProperty: true }) && !element.closest(LEFT_OUT);

  const contrast = {};
  let [smallest, checked] = [99, 0];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !shown(element)) continue;
    const style = getComputedStyle(element);
    const svg = element.closest("svg");
    const ink = parse(svg ? style.fill : style.color);
    const [dark, light] = [luminance(ink), luminance(ground(svg ?? element))].sort((a, b) => a - b);
    if (!element.closest(".over")) contrast[text] = Math.min((light + 0.05) / (dark + 0.05), contrast[text] ?? 99);
    smallest = Math.min(smallest, parseFloat(style.fontSize) * (svg ? element.getScreenCTM().a : 1));
    const range = document.createRange();
    range.selectNodeContents(walker.currentNode);
    for (const box of range.getClientRects()) if (box.width) look(element, box, text, 2);
    checked += 1;
  }
  for (const element of document.querySelectorAll("th, td, dt, dd, a, button, input:not([type=hidden]), img, svg, meter")) {
    if (!shown(element) || (element.localName === "img" && getComputedStyle(element).opacity === "0")) continue;
    const radius = parseFloat(getComputedStyle(element).borderTopLeftRadius) || 0;
    for (const box of element.getClientRects()) if (box.width && box.height) look(element, box, element.textContent.trim(), Math.min(radius, 12) + 1);
    checked += 1;
  }
  for (const cell of document.querySelectorAll("[data-label]")) {
    const label = getComputedStyle(cell, "::before");
    if (label.content === "none" || !shown(cell)) continue;
    if (parseFloat(label.width) + 4 > parseFloat(getComputedStyle(cell).paddingLeft)) report("under its label", cell, cell.textContent.trim());
  }
  for (const plot of document.querySelectorAll(".plot")) {
    const boxes = [...plot.querySelectorAll("text")].map((one) => one.getBoundingClientRect());
    const meet = (a, b) => a.left < b.right && b.left < a.right && a.top + a.height / 4 < b.bottom && b.top + b.height / 4 < a.bottom;
    if (boxes.some((a, i) => boxes.some((b, j) => i < j && meet(a, b)))) report("labels over each other", plot, "");
  }
  return { needed: document.documentElement.scrollWidth, width: innerWidth, contrast, unseen, smallest, checked };
}
