/* Values and terms explain themselves on hover, focus and touch; figures become interactive; a linked cell opens. */
"use strict";
(() => {
  const here = document.currentScript.src;
  const tip = Object.assign(document.createElement("div"), { id: "paper-tip", role: "tooltip", hidden: true });
  tip.setAttribute("role", "tooltip");
  let owner = null;

  function hide() {
    if (owner) owner.removeAttribute("aria-describedby");
    tip.hidden = true;
    owner = null;
  }

  function show(link) {
    if (owner === link) return;
    hide();
    owner = link;
    tip.textContent = link.dataset.tip;
    tip.hidden = false;
    link.setAttribute("aria-describedby", tip.id);
    const box = link.getBoundingClientRect();
    const left = Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8));
    const below = box.bottom + 4 + tip.offsetHeight <= innerHeight;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(below ? box.bottom : box.top - tip.offsetHeight) + scrollY}px`;
  }

  function values() {
    document.body.append(tip);
    for (const link of document.querySelectorAll("a.paper-value, a.paper-term")) {
      link.dataset.tip = link.title;
      link.removeAttribute("title");
      if (link.querySelector(".math")) link.setAttribute("aria-label", link.dataset.tip.split(":")[0]); // a drawn sign
      link.addEventListener("mouseenter", () => show(link));
      link.addEventListener("focus", () => show(link));
      link.addEventListener("blur", hide);
      link.addEventListener("mouseleave", (event) => event.relatedTarget !== tip && hide());
      let touched = false; // a first touch explains, a second one follows the link
      link.addEventListener("pointerdown", (event) => { touched = event.pointerType === "touch" && owner !== link; });
      link.addEventListener("click", (event) => {
        if (touched) { event.preventDefault(); show(link); }
        touched = false;
      });
    }
    tip.addEventListener("mouseleave", hide);
    addEventListener("keydown", (event) => event.key === "Escape" && hide());
  }

  function reveal() {
    const anchor = location.hash.startsWith("#cell-") && document.getElementById(location.hash.slice(1));
    if (!anchor) return;
    let cell = anchor.nextElementSibling;
    while (cell && !cell.classList.contains("cell")) cell = cell.nextElementSibling;
    if (cell) for (const part of cell.querySelectorAll("details")) part.open = true;
    anchor.scrollIntoView();
  }

  // cells of code alone stand under one mark with the cell that they lead to
  function codes() {
    for (const cell of document.querySelectorAll(".bd-article div.cell")) {
      const next = cell.nextElementSibling?.matches(".paper-anchor") ? cell.nextElementSibling.nextElementSibling : cell.nextElementSibling;
      const [from, to] = [cell, next].map((one) => one?.matches("div.cell") && one.querySelector(":scope > details.hide"));
      if (!from || !to || cell.querySelector(".cell_output")) continue;
      to.querySelector("summary").after(...from.querySelectorAll(".cell_input"));
      cell.remove();
    }
  }

  // on a phone a figure is enlarged, and made small again, by a touch
  function figures() {
    for (const figure of document.querySelectorAll(".paper-figure > svg:not(.paper-drawing)")) {
      figure.addEventListener("click", () => figure.classList.toggle("paper-large"));
    }
  }

  function plots() {
    const all = document.querySelectorAll(".paper-plot");
    if (!all.length) return;
    const loaded = new Promise((done) => {
      const script = document.createElement("script");
      script.src = new URL("plotly-cartesian.min.js", here);
      script.addEventListener("load", done);
      document.head.append(script);
    });
    for (const place of all) {
      const opened = async () => { await loaded; await draw(place); };
      place.closest("details").addEventListener("toggle", opened, { once: true });
    }
  }

  async function draw(place) {
    const { data, layout, choices } = JSON.parse(place.dataset.figure);
    if (choices) place.before(menu(place, choices));
    await window.Plotly.newPlot(place, data, { autosize: true, ...layout },
      { responsive: true, displaylogo: false, displayModeBar: false });
  }

  function menu(place, choices) {
    const select = document.createElement("select");
    select.className = "paper-menu";
    select.setAttribute("aria-label", "what the figure shows");
    select.append(...Object.keys(choices).map((label) => new Option(label)));
    select.addEventListener("change", () => window.Plotly.restyle(place, choices[select.value]));
    return select;
  }

  // a table or formula that is wider than its place says so
  function edges() {
    const boxes = document.querySelectorAll(".paper-scroll, .pst-scrollable-table-container, div.math");
    const seen = new ResizeObserver((all) => { for (const { target } of all) mark(target); });
    for (const box of boxes) { mark(box); seen.observe(box); }
    addEventListener("paper-table", (event) => { mark(event.target); seen.observe(event.target); }); // one made later
    addEventListener("toggle", (event) => { // what was folded had not been laid out
      for (const box of event.target.querySelectorAll(".paper-scroll")) { box.dataset.wide = ""; mark(box); }
    }, true);
  }

  function mark(box) {
    if (box.dataset.wide === `${box.clientWidth}`) return; // the mark itself changes the height
    box.dataset.wide = box.clientWidth;
    box.classList.remove("paper-tight", "paper-cut");
    for (const name of ["paper-tight", "paper-cut"]) { // first its cells wrap, then it says so
      if (box.scrollWidth > box.clientWidth + 1) box.classList.add(name);
    }
  }

  function start() { values(); codes(); figures(); reveal(); plots(); edges(); addEventListener("hashchange", reveal); }
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", start); else start();
})();
