# Replaces the SDK's package.mk: lays out the files of a package in $(STAGE)/root and its metadata in $(STAGE)/meta, one file for
# each field. `openwrt-package/build` packs both. The program comes from $(PKG_INSTALL_DIR)/bin.
.PHONY: stage
meta = $(file >$(STAGE)/meta/$(1),$(2))
scripts := preinst postinst prerm postrm

define BuildPackage
$(eval $(call Package/$(1)))
stage:
	$$(call meta,name,$(1))
	$$(call meta,version,$(PKG_VERSION))
	$$(call meta,release,$(PKG_RELEASE))
	$$(call meta,license,$(PKG_LICENSE))
	$$(call meta,maintainer,$(PKG_MAINTAINER))
	$$(call meta,section,$$(SECTION))
	$$(call meta,title,$$(TITLE))
	$$(call meta,all,$$(filter all,$$(PKGARCH)))
	$$(call meta,depends,$$(patsubst +%,%,$$(filter +%,$$(DEPENDS))))
	$$(call meta,description,$$(call Package/$(1)/description))
	$$(call meta,conffiles,$$(call Package/$(1)/conffiles))
	$$(foreach script,$(scripts),$$(if $$(value Package/$(1)/$$(script)),$$(call meta,$$(script),$$(call Package/$(1)/$$(script)))))
	$$(call Package/$(1)/install,$(STAGE)/root)
endef
