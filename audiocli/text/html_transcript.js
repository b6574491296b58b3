"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const player = find("player");
  const query = find("query");
  const hitCount = find("hits");
  const status = find("status");
  const help = find("help");
  const words = [...document.querySelectorAll("p [data-t]")];
  const starts = words.map((word) => Number(word.dataset.t));
  const ends = words.map((word) => Number(word.dataset.e));
  // Speakers may interrupt each other, so that the words are not always in the order of their times.
  const order = starts.map((_, index) => index).sort((a, b) => starts[a] - starts[b] || a - b);
  const isMotionReduced = matchMedia("(prefers-reduced-motion: reduce)");
  let current = null;
  let hits = [];
  let hitIndex = -1;

  const announce = (message) => { status.textContent = message; };
  const scrollTo = (element) =>
    element.scrollIntoView({ block: "center", behavior: isMotionReduced.matches ? "auto" : "smooth" });

  // --- player

  const canPlay = () => player.hidden === false && Boolean(player.currentSrc || player.src);
  const play = () => { player.play().catch(() => announce("The recording cannot be played.")); };
  const toggle = () => { if (canPlay()) { if (player.paused) { play(); } else { player.pause(); } } };
  const seek = (seconds) => {
    if (!canPlay()) { return; }
    const end = Number.isFinite(player.duration) ? player.duration : seconds;
    player.currentTime = Math.min(Math.max(seconds, 0), end);
    showCurrent();
  };

  const findWord = (seconds) => {
    let low = 0;
    let high = order.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (starts[order[middle]] <= seconds + 0.02) { low = middle + 1; } else { high = middle; }
    }
    if (!low) { return null; }
    const index = order[low - 1];
    return seconds <= ends[index] + 1 ? words[index] : null;
  };

  const showCurrent = () => {
    const word = findWord(player.currentTime);
    if (word === current) { return; }
    if (current) { current.classList.remove("word-now"); }
    current = word;
    if (!word) { return; }
    word.classList.add("word-now");
    const box = word.getBoundingClientRect();
    const top = document.querySelector("header").getBoundingClientRect().bottom;
    if (find("follow").checked && !player.paused && (box.top < top || box.bottom > innerHeight - 40)) { scrollTo(word); }
  };

  // The event timeupdate comes four times in a second only.
  const follow = () => {
    showCurrent();
    if (!player.paused && !player.ended) { requestAnimationFrame(follow); }
  };

  player.addEventListener("play", follow);
  player.addEventListener("seeked", showCurrent);
  player.addEventListener("timeupdate", showCurrent);
  const offerFile = () => {
    player.hidden = true;
    find("choose").hidden = false;
    announce("The recording was not found. Choose its file to play it.");
  };
  player.addEventListener("error", offerFile);
  if (player.dataset.missing !== undefined) { find("choose").hidden = false; } else if (player.error) { offerFile(); }
  find("file").addEventListener("change", (event) => {
    const file = event.target.files[0];
    if (!file) { return; }
    player.src = URL.createObjectURL(file);
    player.hidden = false;
    announce("");
  });
  find("speed").addEventListener("change", (event) => { player.playbackRate = Number(event.target.value); });

  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-t]");
    // Marking text is not a click on a word.
    if (!target || (target.tagName !== "BUTTON" && !getSelection().isCollapsed)) { return; }
    seek(Number(target.dataset.t));
    if (canPlay()) { play(); }
  });

  // --- search

  const fold = (text) => text.normalize("NFC").toLowerCase();

  const search = () => {
    for (const word of document.querySelectorAll(".hit")) { word.classList.remove("hit", "now"); }
    hits = [];
    hitIndex = -1;
    const wanted = fold(query.value.trim().replace(/\s+/g, " "));
    if (!wanted) { hitCount.textContent = ""; return; }
    for (const paragraph of document.querySelectorAll("main p[data-text]")) {
      let text = "";
      const spans = [...paragraph.querySelectorAll("span")].map((span) => {
        if (text && span.dataset.space !== undefined) { text += " "; }
        const start = text.length;
        text += fold(span.textContent);
        return { span, start, end: text.length };
      });
      for (let position = text.indexOf(wanted); position >= 0; position = text.indexOf(wanted, position + wanted.length)) {
        const end = position + wanted.length;
        const found = spans.filter((part) => part.start < end && part.end > position).map((part) => part.span);
        if (found.length) { hits.push(found); }
      }
    }
    for (const found of hits) { for (const span of found) { span.classList.add("hit"); } }
    hitCount.textContent = hits.length ? `0 of ${hits.length}` : "none";
    if (hits.length) { showHit(0); }
  };

  const showHit = (index) => {
    if (!hits.length) { return; }
    if (hitIndex >= 0) { for (const span of hits[hitIndex]) { span.classList.remove("now"); } }
    hitIndex = (index + hits.length) % hits.length;
    for (const span of hits[hitIndex]) { span.classList.add("now"); }
    hitCount.textContent = `${hitIndex + 1} of ${hits.length}`;
    scrollTo(hits[hitIndex][0]);
  };

  query.addEventListener("input", search);
  find("search").addEventListener("submit", (event) => { event.preventDefault(); showHit(hitIndex + 1); });
  find("previous").addEventListener("click", () => showHit(hitIndex - 1));

  // --- copy

  const paragraphs = [...document.querySelectorAll("main .paragraph")];
  const describe = (paragraph) => {
    const time = paragraph.querySelector(".time");
    const speaker = paragraph.querySelector(".speaker");
    const text = paragraph.querySelector("p").textContent.replace(/\s+/g, " ").trim();
    return (time ? `[${time.textContent}] ` : "") + (speaker ? `${speaker.textContent} ` : "") + text;
  };

  const copy = async () => {
    const selection = getSelection();
    const range = selection.rangeCount && !selection.isCollapsed ? selection.getRangeAt(0) : null;
    const chosen = range ? paragraphs.filter((paragraph) => range.intersectsNode(paragraph)) : paragraphs;
    const text = (chosen.length ? chosen : paragraphs).map(describe).join("\n") + "\n";
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    announce(chosen.length === paragraphs.length ? "Copied the transcript with times." : `Copied ${chosen.length} paragraphs with times.`);
  };
  find("copy").addEventListener("click", copy);

  // --- keyboard

  const moveParagraph = (step) => {
    const times = [...document.querySelectorAll("main .time")];
    if (!times.length) { return; }
    const before = times.filter((time) => Number(time.dataset.t) <= player.currentTime + 0.05).length - 1;
    const target = times[Math.min(Math.max(before + step, 0), times.length - 1)];
    seek(Number(target.dataset.t));
    scrollTo(target);
  };
  const showHelp = () => { if (help.open) { help.close(); } else { help.showModal(); } };
  find("keys").addEventListener("click", showHelp);
  find("close").addEventListener("click", () => help.close());

  const shortcuts = {
    " ": toggle,
    k: toggle,
    ArrowLeft: () => seek(player.currentTime - 5),
    ArrowRight: () => seek(player.currentTime + 5),
    ArrowUp: () => moveParagraph(-1),
    ArrowDown: () => moveParagraph(1),
    "/": () => { query.focus(); query.select(); },
    n: () => showHit(hitIndex + 1),
    p: () => showHit(hitIndex - 1),
    c: copy,
    "?": showHelp,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) { return; }
    const target = event.target;
    if (target === query) {
      if (event.key === "Escape") { query.value = ""; search(); query.blur(); }
      return;
    }
    if (help.open && event.key !== "?") { return; }
    // Buttons and the controls of the player have keys of their own.
    const isControl = target.matches("select, input, textarea, audio, video");
    const isButton = target.matches("button, label") && event.key === " ";
    const action = Object.hasOwn(shortcuts, event.key) ? shortcuts[event.key] : null;
    if (!action || isControl || isButton) { return; }
    event.preventDefault();
    action();
  });
})();
