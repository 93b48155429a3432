# Written by `cargo xtask formula`: the next release writes it anew.
class @CLASS@ < Formula
  desc "@DESC@"
  homepage "@HOMEPAGE@"
  url "@GIT@",
      tag:      "@TAG@",
      revision: "@REVISION@"
  license "@LICENSE@"

  def install
    (bin/"@NAME@").write <<~'SH'
@WRAPPER@
    SH
    chmod 0755, bin/"@NAME@"
  end

  def caveats
    <<~EOS
      It needs Docker or Podman: it runs an image, which it fetches when it is first started.
    EOS
  end

  test do
    image = shell_output("#{bin}/@NAME@ --image")
    assert_equal "@IMAGE@", image.strip
  end
end
