(() => {
  let revision = "";
  const poll = async () => {
    try {
      const answer = await fetch("/live.json", { cache: "no-store" });
      const news = await answer.json();
      if (revision && news.revision !== revision) {
        const main = document.querySelector("main");
        const open = [...main.querySelectorAll("details")].map((item) => item.open);
        const next = new DOMParser().parseFromString(news.main, "text/html").querySelector("main");
        next.querySelectorAll("details").forEach((item, i) => { item.open = open[i] ?? item.open; });
        main.replaceChildren(...next.childNodes);
      }
      revision = news.revision;
      document.documentElement.dataset.live = "on";
    } catch {
      document.documentElement.dataset.live = "off";
    }
    setTimeout(poll, 2000);
  };
  poll();
})();
